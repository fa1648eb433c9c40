"""Schedules of x86 functions timed on other machines: as many at once as the tracker has boards with the key."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..passes.errors import UserError
from ..targets.kernels.decisions import Choice, Decisions, point_key
from ..targets.remote.board import Board
from ..targets.remote.boards import Boards
from ..targets.remote.errors import BoardsLostError, NoBoardError, RemoteFailure
from ..targets.tuning_log import TuningLog
from ..targets.x86.host import tvm_target
from ..targets.x86.measure import FASTEST_CORES
from ..targets.x86.tuning import X86Tuning
from .process import WorkerPool
from .search import LOST, Measured, Task
from .seconds import REPEAT, TimingBench
from .timed import FINAL_ROUNDS
from .worker import difference, poisoned

_MILLISECONDS = 4


class BoardBench(TimingBench):
    """Times schedules on boards; they are compiled, and their reference is computed, on this machine.

    Args:
        boards: The boards. All are taken for the same machine; the final rounds of a task are on one of them.
        target, pool, folder, log, seed, tolerance, limit: As of `TimingBench`.
    """

    def __init__(
        self,
        boards: Boards,
        target: X86Tuning,
        pool: WorkerPool,
        folder: Path,
        log: TuningLog,
        seed: int,
        tolerance: float,
        limit: float,
    ) -> None:
        super().__init__(target, pool, folder, log, seed, tolerance, limit)
        self._boards, self._threads = boards, target.threads
        # What the boards can do this machine may lack.
        self._here = json.dumps(json.loads(str(tvm_target("native", target.threads))))
        self._lock = threading.Lock()

    def times(self, task: Task, points: Sequence[Decisions]) -> list[Measured]:
        """Check and time compiled points, as many at once as there are boards."""
        self.reference(task)
        with ThreadPoolExecutor(max(1, len(self._boards.servers()))) as executor:
            return list(executor.map(partial(self.time, task), points))

    def time(self, task: Task, point: Decisions) -> Measured:
        """Check and time a point on a board that is free."""
        if self.lost is not None:
            return Measured(LOST)
        library = self.library(task, point)
        assert library is not None
        trial = partial(self._trial, library, self.reference(task), REPEAT)
        try:
            return self._boards.limited(self._limit).do(trial, f"a candidate of {task.result.name}")
        except RemoteFailure as failure:
            return Measured(failure.status, reason=failure.reason)
        except (BoardsLostError, NoBoardError) as error:
            return self._given_up(error)

    def turns(self, task: Task, points: Sequence[Decisions]) -> dict[str, list[float]]:
        """Times of points in turns, all on the same board."""
        found = {point_key(point): library for point in points if (library := self.library(task, point)) is not None}
        reference = self.reference(task)

        def in_turns(board: Board) -> dict[str, list[float]]:
            times: dict[str, list[float]] = {key: [] for key in found}
            for _ in range(FINAL_ROUNDS):
                for key, library in found.items():
                    outcome = self._trial(library, reference, 1, board)
                    times[key].append(np.nan if outcome.cost is None else outcome.cost)
            return times

        try:
            return {} if self.lost is not None else self._boards.do(in_turns, f"the final rounds of {task.result.name}")
        except RemoteFailure:
            return {}
        except (BoardsLostError, NoBoardError) as error:
            self._given_up(error)
            return {}

    def peak(self, choice: Choice) -> float | None:
        """Of the boards nothing is known."""
        return None

    def _given_up(self, error: UserError) -> Measured:
        """What came of a candidate whose boards were lost: it may be that they died of it, or none is left."""
        if self._boards.servers():
            return Measured("crash", reason=str(error))
        with self._lock:
            self.lost = self.lost or str(error)
        return Measured(LOST)

    def _trial(self, library: Path, data: Path, repeat: int, board: Board) -> Measured:
        """Check a candidate against the reference, then time it."""
        with np.load(data) as file:
            count = sum(name.startswith("arr_") for name in file.files)
            inputs, expected = [file[f"arr_{index}"] for index in range(count)], file["expected"]
        board.session.get_function("runtime.config_threadpool")(FASTEST_CORES, self._threads)
        module = board.load(library)
        tensors, output = [board.tensor(value) for value in inputs], board.tensor(poisoned(expected))
        module["main"](*tensors, output)
        problem = difference(output.numpy(), expected, self._tolerance)
        if problem is None and any(not _equal(tensor, value) for tensor, value in zip(tensors, inputs, strict=True)):
            problem = "it overwrote an input"
        if problem is not None:
            return Measured("wrong", reason=problem)
        evaluate = module.time_evaluator("main", board.device, number=1, repeat=repeat, min_repeat_ms=_MILLISECONDS)
        # The least: whatever else the machine does can only add.
        return Measured("ok", min(float(value) for value in evaluate(*tensors, output).results))


def _equal(tensor: Any, value: np.ndarray) -> bool:
    return np.array_equal(tensor.numpy(), value, equal_nan=value.dtype.kind == "f")
