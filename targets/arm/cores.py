"""What can be said of the description of a 64-bit Cortex-A before anything is built."""

from __future__ import annotations

from ..base import TargetDescription

CORES = (
    *("cortex-a35", "cortex-a53", "cortex-a55", "cortex-a57", "cortex-a72", "cortex-a73", "cortex-a75", "cortex-a76"),
    *("cortex-a77", "cortex-a78", "cortex-a78ae", "cortex-a510", "cortex-a710", "cortex-a715", "neoverse-n1", "neoverse-n2"),
)
"""What they can do is asked of LLVM, see `kernels.products`."""

EMULATED = ("cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max")
"""CPUs of qemu-aarch64 from version 7.2 on."""

_TRIPLE = "aarch64-linux-gnu"


def problem(description: TargetDescription) -> str | None:
    """What is wrong with the description of a board, with the field; None where nothing is."""
    if description.core not in CORES:
        return f"'core': there is no {description.core}; there are {', '.join(CORES)}"
    if description.tvm.get("mcpu") not in CORES or description.tvm.get("mtriple") != _TRIPLE:
        return f"'tvm': it must have one of these cores as mcpu, and the mtriple {_TRIPLE}"
    if description.emulator_cpu not in EMULATED:
        return f"'emulator_cpu': there is no {description.emulator_cpu}; there are {', '.join(EMULATED)}"
    if description.helium:
        return f"'helium': a {description.core} has none"
    return None
