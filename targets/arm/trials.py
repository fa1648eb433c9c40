"""Trying kernels on the user-mode emulator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..base import TargetDescription
from ..objects import available_cpus
from ..trials.execution import Ran, Transport, emulate
from .artifact import emulator_command
from .cores import platform_of


class CortexAEmulator:
    """The emulator of a core; attributes as of `trials.image.Emulator`."""

    transport: Transport = "file"
    most_bytes = 64 << 20
    memory_bytes = 512 << 20

    def __init__(self, description: TargetDescription) -> None:
        self.description = description
        self.tvm = description.tvm
        self.at_once = available_cpus()
        self.prefix = platform_of(description).prefix

    def support(self, folder: Path, objects: Sequence[bytes]) -> tuple[list[Path], list[str | Path]]:
        """Nothing but the linker's option: the emulator then needs no libraries of the other architecture."""
        return [], ["-static"]

    def flags(self) -> list[str]:
        """Of the compiler."""
        return list(self.description.compiler_flags)

    def execute(self, program: Path, folder: Path, expected: Sequence[bytes], limit: float) -> Ran:
        """Run a program, and count."""
        return emulate(partial(emulator_command, self.description), program, folder, f"{self.prefix}nm", limit)
