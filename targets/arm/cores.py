"""The Cortex-A cores there are, the tool chains and emulators for them, and what a description of a board cannot be."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import TargetDescription
from .features import needed


@dataclass(frozen=True)
class Platform:
    """Linux on an architecture.

    Attributes:
        prefix: Starts the names of the tool chain's programs.
        qemu: The user-mode emulator.
        cores: LLVM's names of the cores; what they can do is asked of LLVM.
        emulated: CPUs of the emulator from version 7.2 on.
        wide: Whether it is a 64-bit architecture: our kernels are for that alone, and so is TVM's package with its RPC server.
    """

    prefix: str
    qemu: str
    cores: tuple[str, ...]
    emulated: tuple[str, ...]
    wide: bool

    @property
    def programs(self) -> tuple[list[str], list[str]]:
        """What building and what running needs."""
        return [self.prefix + name for name in ("gcc", "ld", "ar", "size")], [self.prefix + "nm", self.qemu, "cc"]


GENERIC = "generic"
"""The core of boards that differ: their instructions are read from the board that code is for."""

PLATFORMS = {
    "aarch64-linux-gnu": Platform(
        prefix="aarch64-linux-gnu-",
        qemu="qemu-aarch64",
        cores=(
            *("cortex-a35", "cortex-a53", "cortex-a55", "cortex-a57", "cortex-a72", "cortex-a73", "cortex-a75", "cortex-a76"),
            *("cortex-a77", "cortex-a78", "cortex-a78ae", "cortex-a510", "cortex-a710", "cortex-a715"),
            *("neoverse-n1", "neoverse-n2", "neoverse-v1", GENERIC),
        ),
        emulated=("cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max"),
        wide=True,
    ),
    "armv7-linux-gnueabihf": Platform(
        prefix="arm-linux-gnueabihf-",
        qemu="qemu-arm",
        cores=("cortex-a5", "cortex-a7", "cortex-a8", "cortex-a9", "cortex-a15", "cortex-a17"),
        emulated=("cortex-a7", "cortex-a8", "cortex-a9", "cortex-a15", "max"),
        wide=False,
    ),
}
"""By the triple of the TVM target."""


def platform_of(description: TargetDescription) -> Platform:
    """The platform of a board."""
    return PLATFORMS[str(description.tvm["mtriple"])]


def _lacks(description: TargetDescription) -> list[str]:
    """Instructions that the code may use and the emulated core lacks; the emulator's names of cores are LLVM's."""
    if description.emulator_cpu == "max":
        return []
    attributes = [name for name in description.tvm.get("mattr", ()) if name == "+neon"]
    emulated = needed({**description.tvm, "mcpu": description.emulator_cpu, "mattr": attributes})
    return [feature.name for feature in needed(description.tvm) if feature not in emulated]


def problem(description: TargetDescription) -> str | None:
    """What is wrong with the description of a board, with the field; None where nothing is."""
    known = [core for platform in PLATFORMS.values() for core in platform.cores]
    if description.core not in known:
        return f"'core': there is no {description.core}; there are {', '.join(known)}"
    triple, platform = next((t, p) for t, p in PLATFORMS.items() if description.core in p.cores)
    if description.tvm.get("mcpu") not in platform.cores or description.tvm.get("mtriple") != triple:
        return f"'tvm': it must have one of {', '.join(platform.cores)} as mcpu, and the mtriple {triple}"
    if not platform.wide and (description.tvm.get("mfloat-abi") != "hard" or "+neon" not in description.tvm.get("mattr", ())):
        return "'tvm': a 32-bit core needs mfloat-abi = 'hard' and mattr = ['+neon']"
    if description.emulator_cpu not in platform.emulated:
        return f"'emulator_cpu': there is no {description.emulator_cpu}; there are {', '.join(platform.emulated)}"
    missing = _lacks(description)
    if missing:
        return (
            f"'emulator_cpu': a {description.emulator_cpu} lacks {', '.join(missing)}, which code for {description.name} needs"
        )
    if description.helium:
        return f"'helium': a {description.core} has none"
    return None
