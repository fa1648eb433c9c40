"""Boards for code of Cortex-A without any: candidates are run by the emulator, times are made up."""

# mypy: ignore-errors

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tvm_ffi

from tvmcompress.targets import get_target
from tvmcompress.targets.arm.features import masks, needed
from tvmcompress.targets.remote.board import Board
from tvmcompress.targets.remote.facts import Facts

SYSROOT = "/usr/aarch64-linux-gnu"


def runner(folder: Path) -> Path:
    """The program of run_candidate.c."""
    program = folder / "run_candidate"
    includes = {tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path()}
    command = ["aarch64-linux-gnu-gcc", "-rdynamic", *(f"-I{place}" for place in includes)]
    command += [Path(__file__).parent / "run_candidate.c", "-ldl", "-o", program]
    subprocess.run(list(map(str, command)), check=True)
    return program


class EmulatedBoard:
    """A board with the processor of a target.

    Args:
        program: Of `runner`.
        target: Its name.
        seconds: The time of a run of a library.
    """

    address, architecture, triple, device = "emulated:0", "aarch64", "aarch64-linux-gnu", None
    require = Board.require

    def __init__(self, program: Path, target: str, seconds: Callable[[Path, int], float]) -> None:
        self._program, self._seconds = program, seconds
        self._cpu = get_target(target).description.emulator_cpu
        hwcap, hwcap2 = masks(needed(get_target(target).description.tvm))
        self.facts = Facts(hwcap=hwcap, hwcap2=hwcap2)

    def load(self, library: Path) -> EmulatedModule:
        return EmulatedModule(self, library)

    def tensor(self, value):
        return SimpleNamespace(value=np.array(value), numpy=lambda: value)

    def read_facts(self) -> Facts:
        return self.facts

    def run(self, library: Path, number: int, out) -> None:
        command = ["qemu-aarch64", "-cpu", self._cpu, "-L", SYSROOT, self._program, library, number, out.value.size]
        subprocess.run(list(map(str, command)), cwd=self._program.parent, check=True, timeout=60)
        found = np.frombuffer((self._program.parent / "output.bin").read_bytes(), "uint8")
        out.numpy = lambda: found

    def seconds(self, library: Path, number: int) -> float:
        return self._seconds(library, number)


class EmulatedModule:
    def __init__(self, board: EmulatedBoard, library: Path) -> None:
        self._board, self._library = board, library

    def __getitem__(self, name):
        assert name == "check"
        return lambda number, out: self._board.run(self._library, number, out)

    def time_evaluator(self, name, device, number, repeat, min_repeat_ms=0):
        def evaluate(*arguments):
            run = arguments[0] if name == "call" else -1
            return SimpleNamespace(results=[self._board.seconds(self._library, run)] * repeat)

        return evaluate


class EmulatedBoards:
    """In place of `Boards`."""

    key, timeout = "emulated", 60.0

    def __init__(self, board: EmulatedBoard) -> None:
        self._board = board

    def servers(self):
        return (self._board.address,)

    def limited(self, timeout):
        return self

    def do(self, task, what):
        return task(self._board)
