"""A model module as functions ready for code generation, called in order on a planned arena."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...passes._tvm import tvm
from .arena import Arena, plan_arena
from .lower import Lowered, lower
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


def compile_program(program: Program, target: tvm.target.Target) -> Compiled:
    """Lower the functions of a program, and plan its arena."""
    lowered = lower(program.functions, target)
    return Compiled(program, lowered, plan_arena(program, lowered.workspaces))
