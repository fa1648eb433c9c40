"""Functions of one byte by table, 64 at once: vpermi2b of AVX-512 VBMI picks from 128 entries, a table has two times that.

The operator `tvmcompress.x86_qlut` computes what `qlut` computes on int8. One by one, a table takes a load for every element.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ....passes._tvm import relax, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import make_call, register_operator, tensor_type
from .intrinsics import OPAQUE

FEATURE = "avx512vbmi"
"""The instruction set."""
VECTOR = 64
"""Elements of a vector; there must be so many."""


def x86_qlut(x: relax.Expr, table: relax.Expr) -> relax.Call:
    """The operator.

    Args:
        x: int8 (N,), N at least 64.
        table: int8 (256,), for -128 and on.
    """
    return make_call(_LOOKUP, [x, table])


def legalize_lookup(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of the function."""
    (count,) = static_shape(call.args[0])
    made = builder.add_func(lookup_function(count), "x86_qlut")
    return relax.call_tir(made, list(call.args), out_ty=_infer(call))


def lookup_function(count: int) -> tirx.PrimFunc:
    """The function: (x, table, result) of `count` elements. The last vector overlaps the one before."""
    with IRBuilder() as ib, T.prim_func(s_tir=True):
        T.func_name("x86_qlut")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": OPAQUE})
        x = T.arg("x", T.Buffer((count,), "int8"))
        table = T.arg("table", T.Buffer((256,), "int8"))
        result = T.arg("result", T.Buffer((count,), "int8"))
        with T.sblock("root"), T.serial(0, -(-count // VECTOR)) as step:
            start = tirx.min(step * VECTOR, tirx.const(count - VECTOR, "int32"))
            place = tirx.Ramp(start, tirx.const(1, "int32"), VECTOR)
            T.buffer_store(result, _looked_up(x[place], table), [place])
    return ib.get()


def _looked_up(x: Any, table: Any) -> Any:
    quarters = [table[tirx.Ramp(tirx.const(first, "int32"), tirx.const(1, "int32"), VECTOR)] for first in range(0, 256, VECTOR)]

    def picked(low: Any, high: Any) -> Any:
        # By the last seven bits, which are those of x + 128.
        return tirx.call_llvm_pure_intrin(f"int8x{VECTOR}", "llvm.x86.avx512.vpermi2var.qi.512", low, x, high)

    zero = tirx.Broadcast(tirx.const(0, "int8"), VECTOR)
    return tirx.Select(x < zero, picked(*quarters[:2]), picked(*quarters[2:]))


def _infer(call: relax.Call) -> relax.TensorType:
    return tensor_type(static_shape(call.args[0]), "int8")


def _define(call: relax.Call, *tensors: Any) -> Any:
    raise NotImplementedError("x86_qlut has no tensor expression; lower it by `legalize_lookup`")


_LOOKUP = register_operator("x86_qlut", 2, "Function of one byte by table, in vectors of x86", _infer, _define)
