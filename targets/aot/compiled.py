"""A model module as functions ready for code generation, called in order on a planned arena."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...passes._tvm import tvm
from .arena import Arena, plan_arena
from .lower import Lowered, lower
from .plan import align
from .program import Program


@dataclass(frozen=True)
class Compiled:
    """A compiled module.

    Attributes:
        program: The calls.
        lowered: The functions.
        arena: Where tensors and workspaces lie.
    """

    program: Program
    lowered: Lowered
    arena: Arena


Compile = Callable[[tvm.IRModule], Compiled]


def compile_program(program: Program, target: tvm.target.Target, threads: int = 1) -> Compiled:
    """Lower the functions of a program, and plan its arena, with workspaces for so many threads."""
    lowered = lower(program.functions, target, threads=threads > 1)
    workspaces = {
        name: tuple(align(size) * threads for size in sizes) if name in lowered.parallel else sizes
        for name, sizes in lowered.workspaces.items()
    }
    return Compiled(program, lowered, plan_arena(program, workspaces))
