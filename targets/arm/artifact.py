"""A library in a folder, with a program for Linux that runs it on the user-mode emulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..base import TargetDescription
from ..emulators.artifact import EmulatedArtifact


def emulator_command(description: TargetDescription, plugin: Sequence[str], program: Path) -> list[str | Path]:
    """The command line that runs a program on the core's stand-in."""
    return ["qemu-aarch64", "-cpu", str(description.emulator_cpu), *plugin, program]


class CortexAArtifact(EmulatedArtifact):
    """Runs under qemu-aarch64."""

    nm = "aarch64-linux-gnu-nm"
    thumb = False

    def command(self, plugin: Sequence[str], program: Path) -> list[str | Path]:
        """The emulator's command line."""
        return emulator_command(self.target, plugin, program)
