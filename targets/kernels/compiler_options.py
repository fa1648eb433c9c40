"""Options of LLVM as decisions: which passes that lengthen the lives of registers, or shorten code by that, run on a kernel."""

from __future__ import annotations

from collections.abc import Iterator

from .decisions import Decisions
from .use_kernels import NO_STRENGTH_REDUCTION

STRENGTH_REDUCTION, REGISTERS = "strength_reduction", "registers"
_REGISTERS = {
    "usual": [],
    "not_hoisted": ["-disable-machine-licm:bool=true"],
    "not_coalesced": ["-join-liveintervals:bool=false"],
}


def usual(reduced: bool) -> dict[str, str]:
    """The options that a formula takes: with loop strength reduction or without."""
    return {STRENGTH_REDUCTION: "yes" if reduced else "no", REGISTERS: "usual"}


def with_options(points: Iterator[Decisions]) -> Iterator[Decisions]:
    """Points, each with all options."""
    for point in points:
        for how in _REGISTERS:
            yield from ({**point, STRENGTH_REDUCTION: answer, REGISTERS: how} for answer in ("no", "yes"))


def llvm_options(decisions: Decisions) -> list[str]:
    """The options that were decided."""
    reduction = [] if decisions[STRENGTH_REDUCTION] == "yes" else [NO_STRENGTH_REDUCTION]
    return [*reduction, *_REGISTERS[str(decisions[REGISTERS])]]
