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

WORKSPACES_ATTR = "tvmcompress.workspaces"
"""PrimFunc attribute: bytes of the buffers that must lie in the arena, by name. Kernels that access a buffer by vectors
declare its size here, because TVM 0.27 undersizes such buffers (CompactBufferAllocation counts a vector as one element)."""

LLVM_OPTIONS_ATTR = "tvmcompress.llvm_options"
"""PrimFunc attribute: LLVM options under which the function is compiled, separated by spaces."""

_STACK_LIMIT = 256
"""Bytes; larger buffers of functions that declare no workspaces go to the arena."""


@dataclass(frozen=True)
class Lowered:
    """Functions ready for code generation.

    Attributes:
        module: PrimFuncs with pointer parameters.
        workspaces: For each function the bytes of the workspaces that follow its other parameters.
    """

    module: tvm.IRModule
    workspaces: dict[str, tuple[int, ...]]


def lower(functions: Mapping[str, tirx.PrimFunc], target: tvm.target.Target) -> Lowered:
    """Lower functions to plain C functions of their names.

    Args:
        functions: By name; parameters are buffers.
        target: What code is generated for.
    """
    workspaces: dict[str, tuple[int, ...]] = {}
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
        transform.HoistIfThenElse(),
        tir.UnrollLoop(),
        transform.RenormalizeSplitPattern(),
        tir.StmtSimplify(),
        tir.RemoveNoOp(),
        transform.RewriteUnsafeSelect(),
        tir.CommonSubexprElim(),
        _plain_functions(target, workspaces),
        tir.LowerIntrin(),
    ]
    module = tvm.IRModule({name: func.with_attr("global_symbol", name) for name, func in functions.items()})
    with tvm.transform.PassContext(opt_level=3), target:
        module = tvm.transform.Sequential(passes)(module)
    return Lowered(module, workspaces)


def _plain_functions(target: tvm.target.Target, workspaces: dict[str, tuple[int, ...]]) -> Any:
    """The pass that turns buffers into pointers; it notes the workspaces of each function."""

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
            elif size <= _STACK_LIMIT:
                return alloc
            pointer = tirx.Var(f"workspace{len(hoisted)}", PointerType(PrimType(str(buffer.dtype))))
            hoisted.append((pointer, size))
            return tirx.DeclBuffer(buffer, data=pointer)

        body = _map_allocations(func.body, hoist)
        params += [pointer for pointer, _ in hoisted]
        workspaces[str(func.attrs["global_symbol"])] = tuple(size for _, size in hoisted)
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


def _map_allocations(stmt: tirx.Stmt, change: Callable[[tirx.AllocBuffer], tirx.Stmt]) -> tirx.Stmt:
    """Replace allocations; TVM 0.27 has no statement mutator in Python, and allocations stand at statement level only."""
    if isinstance(stmt, tirx.AllocBuffer):
        return change(stmt)
    if isinstance(stmt, tirx.SeqStmt):
        return tirx.SeqStmt([_map_allocations(part, change) for part in stmt.seq])
    if isinstance(stmt, tirx.AttrStmt):
        return tirx.AttrStmt(stmt.node, stmt.attr_key, stmt.value, _map_allocations(stmt.body, change))
    if isinstance(stmt, tirx.For):
        body = _map_allocations(stmt.body, change)
        return tirx.For(stmt.loop_var, stmt.min, stmt.extent, stmt.kind, body, stmt.thread_binding, stmt.annotations)
    if isinstance(stmt, tirx.IfThenElse):
        otherwise = None if stmt.else_case is None else _map_allocations(stmt.else_case, change)
        return tirx.IfThenElse(stmt.condition, _map_allocations(stmt.then_case, change), otherwise)
    return stmt
