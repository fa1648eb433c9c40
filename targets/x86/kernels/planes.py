"""The few planes of an image put together pixel by pixel, in vectors: NCHW to NHWC of two to four channels.

Element by element three planes take a load and a store each; here a vector of every plane is loaded, and a shuffle makes the
vectors that are stored.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ....passes._tvm import relax, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import dtype_of, tensor_type
from .intrinsics import OPAQUE

VECTOR = 8
"""Pixels at a time; there must be so many."""
_PLANES = (2, 3, 4)
_DTYPES = ("float32", "int8", "uint8")


def legalize_planes(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """`permute_dims`: a call of the function where it fits, and as TVM has it otherwise."""
    (x,) = call.args
    shape, dtype = static_shape(x), dtype_of(x)
    # Of what a model computes the permutation may be fused with what computes it; its inputs are there already.
    given = isinstance(x, relax.Var) and builder.lookup_binding(x) is None
    axes = None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
    fits = axes == [0, 2, 3, 1] and shape[0] == 1 and shape[1] in _PLANES and shape[2] * shape[3] >= VECTOR
    if not (given and fits and dtype in _DTYPES):
        return call.op.get_attr("FLegalize")(builder, call)
    made = builder.add_func(planes_function(shape, dtype), "x86_planes")
    return relax.call_tir(made, [x], out_ty=tensor_type((1, *shape[2:], shape[1]), dtype))


def planes_function(shape: tuple[int, ...], dtype: str) -> tirx.PrimFunc:
    """The function: (x, result) of shapes (1, C, H, W) and (1, H, W, C). The last vector overlaps the one before."""
    _, planes, height, width = shape
    count = height * width
    order = [tirx.const(lane + VECTOR * plane, "int32") for lane in range(VECTOR) for plane in range(planes)]
    with IRBuilder() as ib, T.prim_func(s_tir=True):
        T.func_name("x86_planes")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": OPAQUE})
        x = T.arg("x", T.Buffer(shape, dtype))
        result = T.arg("result", T.Buffer((1, height, width, planes), dtype))
        with T.sblock("root"):
            read, written = (T.decl_buffer((planes * count,), dtype, data=buffer.data) for buffer in (x, result))
            with T.serial(0, -(-count // VECTOR)) as step:
                start = tirx.min(step * VECTOR, tirx.const(count - VECTOR, "int32"))
                vectors = [read[_run(start + plane * count, VECTOR)] for plane in range(planes)]
                T.buffer_store(written, tirx.Shuffle(vectors, order), [_run(start * planes, VECTOR * planes)])
    return ib.get()


def _run(start: Any, count: int) -> Any:
    return tirx.Ramp(start, tirx.const(1, "int32"), count)
