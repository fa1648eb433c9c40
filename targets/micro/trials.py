"""Trying kernels on an emulated board."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..base import TargetDescription
from ..objects import available_cpus
from ..trials.execution import Ran, Transport, emulate
from .artifact import emulator_command
from .library_routines import trial_routines
from .project import EMULATOR_STACK_BYTES, RUNTIME, write_emulator_script

OTHER_BYTES = 8192
"""Of memory, for what is not a candidate's: results, and the C library's."""


class CortexMEmulator:
    """An emulated board; attributes as of `trials.image.Emulator`."""

    prefix = "arm-none-eabi-"
    transport: Transport = "semihosting"

    def __init__(self, description: TargetDescription) -> None:
        self.description = description
        self.tvm = description.tvm
        self.at_once = available_cpus()
        self.most_bytes = description.emulated_flash_bytes // 2
        self.memory_bytes = description.emulated_ram_bytes - EMULATOR_STACK_BYTES - OTHER_BYTES

    def support(self, folder: Path, objects: Sequence[bytes]) -> tuple[list[Path], list[str | Path]]:
        """Start-up code, the routines that candidates call, and the linker script."""
        for name in ("startup.c", "semihosting.h"):
            shutil.copyfile(RUNTIME / name, folder / name)
        write_emulator_script(folder / "emulator.ld", self.description)
        sources = [folder / "startup.c", *trial_routines(folder, objects)]
        return sources, ["-nostartfiles", "-specs=nano.specs", "-T", folder / "emulator.ld"]

    def flags(self) -> list[str]:
        """Of the compiler."""
        return ["-mthumb", *self.description.compiler_flags]

    def execute(self, program: Path, folder: Path, expected: Sequence[bytes], limit: float) -> Ran:
        """Run a program, and count."""
        return emulate(partial(emulator_command, self.description), program, folder, f"{self.prefix}nm", limit)
