"""The Cortex-M cores and emulated boards there are, and what they can do."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import TargetDescription


@dataclass(frozen=True)
class Core:
    """A core (Arm, "Cortex-M processor comparison table").

    Attributes:
        triple: LLVM's name of its architecture, without the float ABI.
        dsp: Whether it has the DSP extension: never, always, or as the chip's maker chose.
        helium: Whether it may have Helium (MVE).
        fpu: Whether it may have a floating-point unit.
    """

    triple: str
    dsp: bool | None = False
    helium: bool = False
    fpu: bool = False


CORES = {
    "cortex-m0": Core("thumbv6m-none-eabi"),
    "cortex-m0plus": Core("thumbv6m-none-eabi"),
    "cortex-m1": Core("thumbv6m-none-eabi"),
    "cortex-m3": Core("thumbv7m-none-eabi"),
    "cortex-m4": Core("thumbv7em-none-eabi", dsp=True, fpu=True),
    "cortex-m7": Core("thumbv7em-none-eabi", dsp=True, fpu=True),
    "cortex-m33": Core("thumbv8m.main-none-eabi", dsp=None, fpu=True),
    "cortex-m35p": Core("thumbv8m.main-none-eabi", dsp=None, fpu=True),
    "cortex-m55": Core("thumbv8.1m.main-none-eabi", dsp=True, helium=True, fpu=True),
    "cortex-m85": Core("thumbv8.1m.main-none-eabi", dsp=True, helium=True, fpu=True),
}

MACHINES = {
    "mps2-an385": "cortex-m3",
    "mps2-an386": "cortex-m4",
    "mps2-an500": "cortex-m7",
    "mps2-an505": "cortex-m33",
    "mps2-an521": "cortex-m33",
    "mps3-an524": "cortex-m33",
    "mps3-an547": "cortex-m55",
}
"""The core of each machine of qemu-system-arm that our start-up code runs on."""

_ORDER = ["thumbv6m", "thumbv7m", "thumbv7em", "thumbv8m.main", "thumbv8.1m.main"]
"""Each architecture has the instructions of those before it."""


def has_long_products(description: TargetDescription) -> bool:
    """Whether the compiler may use multiplications of words to two words, which Armv6-M has none of."""
    return not str(description.tvm["mtriple"]).startswith("thumbv6m")


def problem(description: TargetDescription) -> str | None:
    """What is wrong with the description of a board, with the field; None where nothing is."""
    core = CORES.get(description.core)
    if core is None:
        return f"'core': there is no {description.core}; there are {', '.join(CORES)}"
    for name in ("helium", "fpu"):
        if getattr(description, name) and not getattr(core, name):
            return f"'{name}': a {description.core} has none"
    if core.dsp is not None and description.dsp != core.dsp:
        return f"'dsp': a {description.core} {'always has' if core.dsp else 'never has'} these instructions"
    if description.helium and not description.fpu:
        return "'helium': the kernels for it need 'fpu' too"
    for name in ("flash_bytes", "ram_bytes"):
        if not getattr(description, name):
            return f"'{name}': a board has some"
    return _compiler_problem(description, core) or _emulator_problem(description, core)


def _compiler_problem(description: TargetDescription, core: Core) -> str | None:
    tuned = CORES.get(str(description.tvm.get("mcpu")))
    if tuned is None or _rank(tuned) > _rank(core) or (tuned.helium and not description.helium):
        return f"'tvm': mcpu {description.tvm.get('mcpu')} has instructions that a {description.core} lacks, or is none"
    hard = description.tvm.get("mfloat-abi") == "hard"
    triple = tuned.triple + ("hf" if hard else "")
    if description.tvm.get("mtriple") != triple:
        return f"'tvm': the mtriple of this mcpu and float ABI is {triple}, not {description.tvm.get('mtriple')}"
    if hard != ("-mfloat-abi=hard" in description.compiler_flags) or (hard and not description.fpu):
        return "'compiler_flags': -mfloat-abi=hard goes with mfloat-abi = \"hard\" in 'tvm' and fpu = true, or without both"
    return None


def _emulator_problem(description: TargetDescription, core: Core) -> str | None:
    emulated = CORES.get(MACHINES.get(str(description.emulator_machine), ""))
    if emulated is None:
        return f"'emulator_machine': there is no {description.emulator_machine}; there are {', '.join(MACHINES)}"
    if _rank(emulated) < _rank(core):
        return f"'emulator_machine': {description.emulator_machine} lacks instructions of a {description.core}"
    return None


def _rank(core: Core) -> int:
    return _ORDER.index(core.triple.partition("-")[0])
