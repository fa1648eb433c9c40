"""Options of LLVM as decisions: which passes that lengthen the lives of registers, or shorten code by that, run on a kernel.

They are decided beside the kernel's own plan: what differs in nothing else is the same function.
"""

from __future__ import annotations

from collections.abc import Iterator

from .decisions import Decisions
from .use_kernels import NO_STRENGTH_REDUCTION

STRENGTH_REDUCTION, REGISTERS, LOOPS = "strength_reduction", "registers", "loops"
_NAMES = frozenset((STRENGTH_REDUCTION, REGISTERS, LOOPS))

_NO_LOW_OVERHEAD_LOOPS = "-disable-arm-loloops:bool=true"
_REGISTERS = {
    "usual": [],
    "not_hoisted": ["-disable-machine-licm:bool=true"],
    "not_coalesced": ["-join-liveintervals:bool=false"],
}
_LATE = frozenset((NO_STRENGTH_REDUCTION, _NO_LOW_OVERHEAD_LOOPS, *(name for names in _REGISTERS.values() for name in names)))


def usual(reduced: bool) -> dict[str, str]:
    """The options that a formula takes: with loop strength reduction or without."""
    return {STRENGTH_REDUCTION: "yes" if reduced else "no", REGISTERS: "usual"}


def with_options(points: Iterator[Decisions]) -> Iterator[Decisions]:
    """Points, each with all options."""
    for point in points:
        for how in _REGISTERS:
            yield from ({**point, STRENGTH_REDUCTION: answer, REGISTERS: how} for answer in ("no", "yes"))


def llvm_options(decisions: Decisions) -> str:
    """The options that were decided, separated by spaces."""
    found = []
    if decisions.get(LOOPS) == "plain":
        found.append(_NO_LOW_OVERHEAD_LOOPS)
    if decisions.get(STRENGTH_REDUCTION) == "no":
        found.append(NO_STRENGTH_REDUCTION)
    found += _REGISTERS[str(decisions.get(REGISTERS, "usual"))]
    return " ".join(found)


def without_options(decisions: Decisions) -> Decisions:
    """What was decided of the function itself: points that are equal in this are one function."""
    return {name: value for name, value in decisions.items() if name not in _NAMES}


def act_late(options: str) -> bool:
    """Whether options change nothing before LLVM's code generator: the intermediate code is the same with them."""
    return all(option in _LATE for option in options.split())
