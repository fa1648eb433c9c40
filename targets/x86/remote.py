"""A build for x86 on another machine: the virtual machine runs there, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...passes._tvm import relax, tvm
from ..artifact_folder import whole
from ..remote.artifact import Loaded, RemoteProgram
from ..remote.board import Board
from ..remote.facts import Facts
from .artifact import X86Artifact
from .host import cpu_features, kernel_flags, supported_cpu
from .measure import FASTEST_CORES


class X86Program(RemoteProgram):
    """A built shared library.

    Args:
        built: The build.
    """

    def __init__(self, built: X86Artifact) -> None:
        self.built: X86Artifact = built
        self.library: Path = whole(built.path, built.library.name)

    def lacking(self, facts: Facts, architecture: str) -> list[str]:
        """Instruction sets that the code may use and the machine lacks."""
        if architecture != "x86_64":
            return ["the instructions of x86-64"]
        return sorted(cpu_features(self.built.cpu) - kernel_flags(facts.flags)) if facts.flags else []

    def load(self, board: Board, threads: int) -> Loaded:
        """Send the library; kernels use so many threads."""
        board.session.get_function("runtime.config_threadpool")(FASTEST_CORES, threads)
        return _LoadedMachine(board, relax.VirtualMachine(board.load(self.library), board.device))

    def figures(self) -> dict[str, Any]:
        """What the compiler planned."""
        return self.built.figures()


class _LoadedMachine(Loaded):
    def __init__(self, board: Board, machine: Any) -> None:
        self._board, self._machine = board, machine

    def infer(self, sample: Sequence[np.ndarray]) -> list[np.ndarray]:
        self._set(sample)
        self._machine.invoke_stateful("main")
        result = self._machine.get_outputs("main")
        fields = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
        return [field.numpy() for field in fields]

    def seconds(self, sample: Sequence[np.ndarray], runs: int) -> list[float]:
        self._set(sample)
        evaluate = self._machine.time_evaluator("invoke_stateful", self._board.device, number=1, repeat=runs)
        return [float(value) for value in evaluate("main").results]

    def _set(self, sample: Sequence[np.ndarray]) -> None:
        self._machine.set_input("main", *(self._board.tensor(value) for value in sample))


def cpu_of(board: Board) -> str:
    """A machine's CPU as `host.host_cpu` gives this one's."""
    name = board.facts.cpu or "x86-64-v3"
    return supported_cpu(name, kernel_flags(board.facts.flags)) if board.facts.flags else name
