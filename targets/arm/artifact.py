"""A library in a folder, with a program for Linux that runs it on the user-mode emulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..aot.build_info import BuildInfo
from ..base import TargetDescription
from ..emulators.artifact import EmulatedArtifact
from .cores import platform_of


def emulator_command(description: TargetDescription, plugin: Sequence[str], program: Path) -> list[str | Path]:
    """The command line that runs a program on the core's stand-in."""
    return [platform_of(description).qemu, "-cpu", str(description.emulator_cpu), *plugin, program]


class CortexAArtifact(EmulatedArtifact):
    """Runs under qemu-aarch64 or qemu-arm."""

    def __init__(self, target: TargetDescription, path: Path, info: BuildInfo) -> None:
        super().__init__(target, path, info)
        platform = platform_of(target)
        self.nm = f"{platform.prefix}nm"
        self.instructions = "a64" if platform.wide else "a32"

    def command(self, plugin: Sequence[str], program: Path) -> list[str | Path]:
        """The emulator's command line."""
        return emulator_command(self.target, plugin, program)
