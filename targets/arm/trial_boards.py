"""Timing kernels on boards of a tracker: a library of candidates is sent, checked and timed there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..base import TargetDescription
from ..remote.board import Board
from ..remote.boards import Boards
from ..remote.errors import BoardsLostError, NoBoardError, RemoteFailure
from ..remote.facts import ffi_includes
from ..trials.execution import Ran, Transport
from .cores import platform_of
from .features import lacking_for

_REPEAT, _MILLISECONDS = 3, 4
_TURNS = 2


class CortexABoards:
    """Boards of one kind; attributes as of `trials.image.Emulator`. Costs are seconds.

    Args:
        description: What code is for.
        boards: The boards, all taken for the same machine.
        turns: How often the candidates of a program are timed, one after the other.
    """

    transport: Transport = "module"
    most_bytes = 16 << 20
    memory_bytes = 256 << 20

    def __init__(self, description: TargetDescription, boards: Boards, turns: int = _TURNS) -> None:
        self.description, self._boards, self._turns = description, boards, turns
        self.tvm: dict[str, Any] = description.tvm
        self.prefix = platform_of(description).prefix

    @property
    def at_once(self) -> int:
        """As many programs as there are boards."""
        return max(1, len(self._boards.servers()))

    def support(self, folder: Path, objects: Sequence[bytes]) -> tuple[list[Path], list[str | Path]]:
        """Nothing beside the functions themselves."""
        return [], ["-shared", "-Wl,-Bsymbolic", "-lm"]

    def flags(self) -> list[str]:
        """Of the compiler."""
        return [*self.description.compiler_flags, "-fPIC", *(f"-I{folder}" for folder in ffi_includes())]

    def lacking(self, board: Board) -> list[str]:
        """What the code needs and a board lacks."""
        return lacking_for(self.tvm, board.facts, board.architecture)

    def execute(self, program: Path, folder: Path, expected: Sequence[bytes], limit: float) -> Ran:
        """Run the candidates on a board that is free, and time those that are right.

        Raises:
            UserError: The board lacks instructions of the code, or serves another TVM.
            RemoteFailure: It cannot load the program.
        """
        state = _State(expected)
        failure, hung, lost = None, False, False
        try:
            self._boards.limited(limit).do(partial(self._task, program, state), "a program of candidates")
        except RemoteFailure as problem:
            if problem.status == "error":
                raise
            failure, hung = problem.reason, problem.status == "timeout"
        except (BoardsLostError, NoBoardError) as problem:
            # Where boards are left it may be that these died of a candidate.
            failure, lost = str(problem), not self._boards.servers()
        finished = len(expected) if failure is None else state.at
        turns = [tuple(found) for found in state.times[:finished]]
        return Ran(b"".join(state.answers[:finished]), [min(found) for found in turns], turns, failure, hung, lost)

    def _task(self, program: Path, state: _State, board: Board) -> None:
        """On a board; what another one has found before it was lost is kept."""
        board.require(self.lacking(board), self.description.name)
        module = board.load(program)
        evaluate = module.time_evaluator("call", board.device, number=1, repeat=_REPEAT, min_repeat_ms=_MILLISECONDS)
        for turn in range(self._turns):
            for number, wanted in enumerate(state.expected):
                state.at = number
                if number == len(state.times):
                    out = board.tensor(np.zeros(1 + len(wanted), "uint8"))
                    module["check"](number, out)
                    state.answers.append(out.numpy().tobytes())
                    state.times.append([])
                if len(state.times[number]) > turn:
                    continue
                right = state.answers[number] == b"\1" + wanted
                # The least: whatever else the machine does can only add.
                seconds = min(map(float, evaluate(number).results)) if right else 0.0
                state.times[number].append(seconds)


@dataclass
class _State:
    """What is known of a program's runs: their outputs, their times in turns, and which one is running."""

    expected: Sequence[bytes]
    answers: list[bytes] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)
    at: int = 0
