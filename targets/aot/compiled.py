"""A model module as functions ready for linking, called in order on a planned arena."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm.tirx.build import codegen_build

from ...passes._tvm import tirx, tvm
from ..object_cache import Made, digest_of
from ..object_code import object_code
from ..objects import Compiler, compile_functions
from . import lower as lowering
from . import walk
from .arena import Arena, plan_arena
from .lower import LLVM_OPTIONS_ATTR, lower
from .plan import align
from .program import Program


@dataclass(frozen=True)
class Compiled:
    """A compiled module.

    Attributes:
        program: The calls.
        workspaces: For each function the bytes of the workspaces that follow its other parameters, for one thread.
        parallel: Functions that compute a part of their result: their last parameters are its number and how many there are.
        objects: The functions as object files; empty where they become C source.
        module: The lowered functions for C source; empty where there are objects.
        arena: Where tensors and workspaces lie.
    """

    program: Program
    workspaces: Mapping[str, tuple[int, ...]]
    parallel: frozenset[str]
    objects: Mapping[str, bytes]
    module: tvm.IRModule
    arena: Arena


Compile = Callable[[tvm.IRModule], Compiled]


def compile_program(program: Program, target: tvm.target.Target, threads: int = 1) -> Compiled:
    """Compile the functions of a program, and plan its arena, with workspaces for so many threads.

    Raises:
        UserError: A function cannot be compiled.
    """
    if target.kind.name == "c":
        lowered = lower(program.functions, target, threads=threads > 1)
        workspaces, parallel, objects, module = lowered.workspaces, lowered.parallel, {}, lowered.module
    else:
        made = compile_functions({name: [func] for name, func in program.functions.items()}, _compiler(target, threads > 1))
        workspaces = {name: tuple(function.facts["workspaces"]) for name, function in made.items()}
        parallel = frozenset(name for name, function in made.items() if function.facts["parallel"])
        objects, module = {name: function.content for name, function in made.items()}, tvm.IRModule()
    whole = {
        name: tuple(align(size) * threads for size in sizes) if name in parallel else sizes
        for name, sizes in workspaces.items()
    }
    return Compiled(program, workspaces, parallel, objects, module, plan_arena(program, whole))


def _compiler(target: tvm.target.Target, threads: bool) -> Compiler:
    """Plain C functions, under the LLVM options that they ask for."""

    def compiled(func: tirx.PrimFunc) -> Made:
        name = str(func.attrs["global_symbol"])
        lowered = lower({name: func}, target, threads=threads)
        options = str(func.attrs.get(LLVM_OPTIONS_ATTR, ""))
        asked = tvm.target.Target({**json.loads(str(target)), "cl-opt": options.split()}) if options else target
        facts = {"workspaces": lowered.workspaces[name], "parallel": name in lowered.parallel}
        return Made(object_code(codegen_build(lowered.module, asked)), facts)

    limits = f"threads {threads}, {lowering.PARALLEL_ROUNDS}, {lowering.STACK_LIMIT}"
    sources = digest_of(str(lowering.__file__), str(walk.__file__), __file__)
    return Compiler(compiled, f"plain functions, {limits}, {sources}, {target}")
