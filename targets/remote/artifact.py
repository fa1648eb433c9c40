"""A built model that runs on a board: sent, run and timed there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...passes.errors import UserError
from ..aot.samples import joined
from ..base import Artifact
from ..inputs import check_inputs, random_inputs
from ..measurement import Energy, Latency, Measurement
from .board import Board
from .boards import Boards
from .energy import energy_of
from .facts import Facts

RUNS = 200
"""Inferences to time, where they are short enough."""
_LEAST_RUNS = 5
_SHARE = 0.4
"""Of a session's time that is spent on timing."""


class Loaded(ABC):
    """A model in the memory of a board."""

    @abstractmethod
    def infer(self, sample: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on one batch of the built size."""

    @abstractmethod
    def seconds(self, sample: Sequence[np.ndarray], runs: int) -> list[float]:
        """Time so many inferences by TVM's time evaluator on the board."""


class RemoteProgram(ABC):
    """What a family's builds have for boards.

    Attributes:
        built: The build.
        library: What is sent.
        threads: How many threads an inference uses where nobody says.
    """

    built: Artifact
    library: Path
    threads: int = 1

    @abstractmethod
    def lacking(self, facts: Facts, architecture: str) -> list[str]:
        """What the code needs and a board lacks; empty where it is unknown."""

    @abstractmethod
    def load(self, board: Board, threads: int) -> Loaded:
        """Send it to a board; inferences use so many threads.

        Raises:
            UserError: It cannot use so many.
        """

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """What is known of the build without running it: fields of `Measurement`."""


class RemoteArtifact(Artifact):
    """A built model as it runs on a board.

    Args:
        program: What is sent.
        boards: Where to.
    """

    def __init__(self, program: RemoteProgram, boards: Boards) -> None:
        self._program, self._boards = program, boards
        built = program.built
        self.target = built.target.model_copy(update={"source": "hardware"})
        self.path, self.inputs, self.outputs = built.path, built.inputs, built.outputs

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run on samples; see `Artifact.run`.

        Raises:
            UserError: The inputs do not fit, or no board is there that can run it.
            RemoteFailure: It failed on the board.
            BoardsLostError: All boards that it was given to were lost.
        """
        count = check_inputs(self.inputs, inputs)

        def task(board: Board) -> list[list[np.ndarray]]:
            loaded = self._loaded(board, 1)
            return [loaded.infer(self._batch(inputs, count, index)) for index in range(count)]

        results = self._boards.do(task, f"running {self.path.name}")
        return [joined(arrays) for arrays in zip(*results)]

    def measure(
        self,
        inputs: Sequence[np.ndarray] | None = None,
        *,
        runs: int | None = None,
        warm_up: int | None = None,
        threads: int | None = None,
        **options: Any,
    ) -> Measurement:
        """Time inferences on a board.

        Args:
            inputs: The first batch of them is used; random ones when none are given.
            runs: How many are timed; by default 200, or as many as fit into a part of the session's time.
            warm_up: How many run before, not timed; by default a tenth.
            threads: How many threads an inference uses; by default one on x86, and as many as a library for Cortex-A was
                built for.
            options: None.

        Raises:
            UserError: An unknown option, inputs that do not fit, or no board is there that can run it.
            RemoteFailure: It failed on the board.
            BoardsLostError: All boards that it was given to were lost.
        """
        if options:
            raise UserError(f"a board measures without option '{next(iter(options))}'")
        if (runs is not None and runs < 1) or (warm_up is not None and warm_up < 0):
            raise UserError(f"{runs} runs and {warm_up} warm-up runs were asked for; give at least 1 and 0")
        used = threads or self._program.threads
        given = random_inputs(self.inputs) if inputs is None else inputs
        sample = self._batch(given, check_inputs(self.inputs, given), 0)

        def task(board: Board) -> tuple[list[float], Facts, Facts, str]:
            loaded = self._loaded(board, used)
            (first,) = loaded.seconds(sample, 1)
            fitting = max(_LEAST_RUNS, min(RUNS, int(_SHARE * self._boards.timeout / max(first, 1e-9))))
            count = fitting if runs is None else runs
            before = count // 10 if warm_up is None else warm_up
            if before:
                loaded.seconds(sample, before)
            cold = board.read_facts()
            return loaded.seconds(sample, count), cold, board.read_facts(), board.address

        seconds, before, after, address = self._boards.do(task, f"measuring {self.path.name}")
        times = 1e3 * np.array(seconds)
        return Measurement(
            target=self.target.name,
            source="hardware",
            latency=Latency.of(times, used),
            place=_place(address, self._boards.key, before, after),
            **self._program.figures(),
        )

    def measure_energy(self, inputs: Sequence[np.ndarray] | None = None, threads: int | None = 1) -> Energy | None:
        """As `Artifact.measure_energy`, by the board's own counter or sensor.

        Raises:
            UserError: The inputs do not fit, or no board is there that can run it.
            RemoteFailure: It failed on the board.
            BoardsLostError: All boards that it was given to were lost.
        """
        given = random_inputs(self.inputs) if inputs is None else inputs
        sample = self._batch(given, check_inputs(self.inputs, given), 0)

        def task(board: Board) -> Energy | None:
            if board.meter is None:
                return None
            loaded = self._loaded(board, threads or 1)
            (first,) = loaded.seconds(sample, 1)
            return energy_of(board.meter, lambda runs: loaded.seconds(sample, runs), 1e3 * first)

        return self._boards.do(task, f"measuring the energy of {self.path.name}")

    def _batch(self, inputs: Sequence[np.ndarray], count: int, index: int) -> list[np.ndarray]:
        return [np.split(x, count)[index] if x.ndim else x for x in inputs]

    def _loaded(self, board: Board, threads: int) -> Loaded:
        board.require(self._program.lacking(board.facts, board.architecture), self.target.name)
        return self._program.load(board, threads)


def _place(address: str, key: str, before: Facts, after: Facts) -> str:
    """Where a figure is from, and what a reader must know of the place."""
    what = before.model or before.cpu or "an unknown machine"
    ends = "" if before.state() == after.state() else f", at the end {after.state()}"
    return f"{what} at {address} (key {key}), over RPC: {before.state()}{ends}"
