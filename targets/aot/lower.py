"""From PrimFuncs to plain C functions: pointers in, nothing out, no runtime.

TVM's own pipeline ends in packed functions that need its runtime. Here the parameters become raw pointers, and buffers that
a function allocates become pointers too, which the caller points into the arena. What is left calls nothing but memset and
memcpy (and libm, where a float model needs it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import s_tir
from tvm.ir import PointerType, PrimType

from ...passes._tvm import tirx, tvm
from .walk import find

WORKSPACES_ATTR = "tvmcompress.workspaces"
"""PrimFunc attribute: bytes of the buffers that must lie in the arena, by name. Kernels that access a buffer by vectors
declare its size here, because TVM 0.27 undersizes such buffers (CompactBufferAllocation counts a vector as one element)."""

LLVM_OPTIONS_ATTR = "tvmcompress.llvm_options"
"""PrimFunc attribute: LLVM options under which the function is compiled, separated by spaces."""

PARALLEL = "tvmcompress.parallel"
"""Annotation of a loop: its rounds may run in any order and at once, if each thread has workspaces of its own. What stands
around the loop is repeated by every thread, so it must write nothing but workspaces."""

PARALLEL_ROUNDS = 64
"""Rounds of innermost loops below which waking threads takes longer than what they save."""

STACK_LIMIT = 256
"""Bytes; larger buffers of functions that declare no workspaces go to the arena."""


@dataclass(frozen=True)
class Lowered:
    """Functions ready for code generation.

    Attributes:
        module: PrimFuncs with pointer parameters.
        workspaces: For each function the bytes of the workspaces that follow its other parameters.
        parallel: Functions that compute a part of their result: their last parameters are its number and how many there are.
    """

    module: tvm.IRModule
    workspaces: dict[str, tuple[int, ...]]
    parallel: frozenset[str] = frozenset()


def lower(
    functions: Mapping[str, tirx.PrimFunc], target: tvm.target.Target, *, threads: bool = False, tidy: bool = False
) -> Lowered:
    """Lower functions to plain C functions of their names.

    Args:
        functions: By name; parameters are buffers.
        target: What code is generated for.
        threads: Whether loops marked `PARALLEL` are divided among threads.
        tidy: Whether the functions are kernels as we write them. Two passes find nothing in these, though they look for
            conditions to hoist and work without effect for half of the time of lowering; they are left out.
    """
    workspaces: dict[str, tuple[int, ...]] = {}
    parallel: set[str] = set()
    transform, tir = s_tir.transform, tirx.transform
    passes = [
        tir.BindTarget(target.with_host(target)),
        transform.CanonicalizeLoop(),
        transform.LowerCrossThreadReduction(),
        transform.LowerInitBlock(),
        transform.PlanAndUpdateBufferAllocationLocation(),
        transform.ConvertBlocksToOpaque(),
        transform.CompactBufferAllocation(),
        transform.LowerMatchBuffer(),
        transform.StmtSimplify(),
        transform.LowerOpaqueBlock(),
        tir.FlattenBuffer(),
        tir.NarrowDataType(32),
        transform.LoopPartition(),
        tir.VectorizeLoop(True),
        tir.StorageRewrite(),
        *([] if tidy else [transform.HoistIfThenElse()]),
        tir.UnrollLoop(),
        transform.RenormalizeSplitPattern(),
        tir.StmtSimplify(),
        *([] if tidy else [tir.RemoveNoOp()]),
        transform.RewriteUnsafeSelect(),
        tir.CommonSubexprElim(),
        _plain_functions(target, workspaces, parallel if threads else None),
        tir.LowerIntrin(),
    ]
    module = tvm.IRModule({name: func.with_attr("global_symbol", name) for name, func in functions.items()})
    with tvm.transform.PassContext(opt_level=3), target:
        module = tvm.transform.Sequential(passes)(module)
    return Lowered(module, workspaces, frozenset(parallel))


def _plain_functions(target: tvm.target.Target, workspaces: dict[str, tuple[int, ...]], parallel: set[str] | None) -> Any:
    """The pass that turns buffers into pointers; it notes the workspaces of each function, and which compute parts."""

    @tirx.transform.prim_func_pass(opt_level=0, name="PlainFunctions")
    def plain(func: tirx.PrimFunc, mod: tvm.IRModule, ctx: Any) -> tirx.PrimFunc:
        declared = {str(k): int(v) for k, v in func.attrs[WORKSPACES_ATTR].items()} if _declares(func) else None
        params: list[tirx.Var] = []
        declarations: list[tirx.Stmt] = []
        for param in func.params:
            pointer = tirx.Var(f"{param.name}_ptr", PointerType(PrimType(str(param.dtype))))
            params.append(pointer)
            declarations.append(tirx.DeclBuffer(param, data=pointer))
        hoisted: list[tuple[tirx.Var, int]] = []

        def hoist(alloc: tirx.AllocBuffer) -> tirx.Stmt:
            buffer = alloc.buffer
            size = int(np.prod([int(dim) for dim in buffer.shape], dtype=np.int64)) * _bytes(str(buffer.dtype))
            if declared is not None:
                if buffer.name not in declared:
                    return alloc
                size = max(size, declared[buffer.name])
            elif size <= STACK_LIMIT:
                return alloc
            pointer = tirx.Var(f"workspace{len(hoisted)}", PointerType(PrimType(str(buffer.dtype))))
            hoisted.append((pointer, size))
            return tirx.DeclBuffer(buffer, data=pointer)

        body = _map(func.body, tirx.AllocBuffer, hoist)
        params += [pointer for pointer, _ in hoisted]
        name = str(func.attrs["global_symbol"])
        workspaces[name] = tuple(size for _, size in hoisted)
        if parallel is not None and any(map(is_parallel, find(body, tirx.For))) and _rounds(body) >= PARALLEL_ROUNDS:
            part, parts = (tirx.Var(text, "int32") for text in ("part", "parts"))
            body = _map(body, tirx.For, lambda loop: _part_of(loop, part, parts))
            params += [part, parts]
            parallel.add(name)
        body = tirx.SeqStmt([*declarations, body]) if declarations else body
        for key, value in (("device_type", 1), ("device_id", 0)):
            body = tirx.AttrStmt("default", key, tirx.const(value, "int32"), body)
        # Outputs may lie where a dying input lies, so pointers are never promised to be distinct.
        plain_func = tirx.PrimFunc(params, body, func.ret_type, func.attrs)
        return plain_func.with_attr("target", target).with_attr("tirx.noalias", False)

    return plain


def _declares(func: tirx.PrimFunc) -> bool:
    return func.attrs is not None and WORKSPACES_ATTR in func.attrs


def _bytes(dtype: str) -> int:
    data = tvm.DataType(dtype)
    return max(1, data.bits * data.lanes // 8)


def is_parallel(loop: tirx.For) -> bool:
    """Whether the rounds of a loop may run at once."""
    return PARALLEL in loop.annotations


def _part_of(loop: tirx.For, part: tirx.Var, parts: tirx.Var) -> tirx.Stmt:
    """A loop over its share of the rounds, where it may be divided."""
    if not is_parallel(loop):
        return loop
    first, end = (tirx.truncdiv(loop.extent * index, parts) for index in (part, part + 1))
    return tirx.For(loop.loop_var, loop.min + first, end - first, loop.kind, loop.body, loop.thread_binding, {})


def _rounds(stmt: tirx.Stmt) -> int:
    """Rounds of innermost loops."""
    if isinstance(stmt, tirx.SeqStmt):
        return sum(map(_rounds, stmt.seq))
    if isinstance(stmt, tirx.For):
        return int(stmt.extent) * max(1, _rounds(stmt.body)) if isinstance(stmt.extent, tirx.IntImm) else 1
    return _rounds(stmt.body) if isinstance(stmt, tirx.AttrStmt) else 0


def _map(stmt: tirx.Stmt, kind: type, change: Callable[[Any], tirx.Stmt]) -> tirx.Stmt:
    """Replace statements, outer ones before what is inside them; TVM 0.27 has no statement mutator in Python.

    Allocations stand at statement level only.
    """
    if isinstance(stmt, kind):
        stmt = change(stmt)
    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([_map(part, kind, change) for part in stmt.seq])
    if isinstance(stmt, tirx.AttrStmt):
        return tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, _map(stmt.body, kind, change))
    if isinstance(stmt, tirx.For):
        body = _map(stmt.body, kind, change)
        return tirx.For(stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body, stmt.thread_binding, stmt.annotations)
    if isinstance(stmt, tirx.IfThenElse):
        otherwise = None if stmt.else_case is None else _map(stmt.else_case, kind, change)
        return tirx.IfThenElse(stmt.condition, _map(stmt.then_case, kind, change), otherwise)
    return stmt
