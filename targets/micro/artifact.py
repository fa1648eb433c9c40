"""A firmware library in a folder, with a program that runs it on the emulated board."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..base import TargetDescription
from ..emulators.artifact import EmulatedArtifact


def emulator_command(description: TargetDescription, plugin: Sequence[str], program: Path) -> list[str | Path]:
    """The command line that runs a program on the board's stand-in."""
    return [
        "qemu-system-arm",
        *("-M", str(description.emulator_machine)),
        *("-nographic", "-monitor", "none", "-serial", "none"),
        *("-semihosting-config", "enable=on,target=native"),
        *plugin,
        *("-kernel", program),
    ]


class CortexMArtifact(EmulatedArtifact):
    """Runs under qemu-system-arm; files go through semihosting."""

    nm = "arm-none-eabi-nm"
    instructions = "m"

    def command(self, plugin: Sequence[str], program: Path) -> list[str | Path]:
        """The emulator's command line."""
        return emulator_command(self.target, plugin, program)

    def stack_bytes(self, rest: bytes) -> int | None:
        """The deepest stack: the program paints it at reset and looks for the first word that changed."""
        return int.from_bytes(rest[:4], "little") if len(rest) >= 4 else None
