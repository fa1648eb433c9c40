"""Integer matrix product of two tensors, neither of which is a layer's weight."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .registry import dtype_of, register_operator, tensor_type
from .requantization import ScalarRequantization, requantized_call
from .requantize import INT32_MAX, te_requantized


def qmatmul(
    a: relax.Expr,
    b: relax.Expr,
    *,
    input1_zero_point: int,
    input2_zero_point: int,
    **requantization: Unpack[ScalarRequantization],
) -> relax.Call:
    """Matrix product: requantize((a - input1_zero_point) @ (b - input2_zero_point)), TensorFlow Lite's BATCH_MATMUL.

    Args:
        a: int8 (..., M, K); the leading axes broadcast as in NumPy.
        b: int8 (..., K, N).
        input1_zero_point: Of a.
        input2_zero_point: Of b.
        requantization: By scale1 * scale2 / output scale.

    Returns:
        A call of type int8 (..., M, N).
    """
    zero_points = {"input1_zero_point": input1_zero_point, "input2_zero_point": input2_zero_point}
    return requantized_call("matmul", [a, b], requantization, **zero_points)


def largest_depth(zero_point1: int, zero_point2: int) -> int:
    """How many products can be summed in 32 bits, whatever the operands."""
    reach = [max(127 - zero, zero + 128) for zero in (zero_point1, zero_point2)]
    return INT32_MAX // (reach[0] * reach[1])


def _infer(call: relax.Call) -> relax.TensorType:
    shapes = [static_shape(arg) for arg in call.args]
    for arg, shape in zip(call.args, shapes):
        if dtype_of(arg) != "int8" or len(shape) < 2:
            raise ValueError(f"qmatmul: operands must be int8 with two axes or more, got {arg.ty}")
    (rows, depth), (other, columns) = (shape[-2:] for shape in shapes)
    if depth != other:
        raise ValueError(f"qmatmul: shapes {shapes[0]} and {shapes[1]} do not fit")
    if depth > largest_depth(int(call.attrs.input1_zero_point), int(call.attrs.input2_zero_point)):
        raise ValueError(f"qmatmul: a sum of {depth} products could leave 32 bits")
    try:
        outer = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
    except ValueError:
        raise ValueError(f"qmatmul: shapes {shapes[0]} and {shapes[1]} do not broadcast") from None
    return tensor_type((*outer, rows, columns), "int8")


def _place(tensor: Any, outer: tuple[Any, ...]) -> list[Any]:
    """The leading axes of an operand at a position of the result's leading axes."""
    own = outer[len(outer) - (len(tensor.shape) - 2) :]
    return [0 if int(dim) == 1 else i for dim, i in zip(tensor.shape, own)]


def _define(call: relax.Call, a: Any, b: Any) -> Any:
    attrs, shape = call.attrs, _infer(call).shape
    depth = te.reduce_axis((0, static_shape(call.args[0])[-1]), "k")
    zero1, zero2 = (tirx.const(int(attrs[f"input{side}_zero_point"]), "int32") for side in (1, 2))

    def element(*index: Any) -> Any:
        outer, (row, column) = index[:-2], index[-2:]
        first = a(*_place(a, outer), row, depth).astype("int32") - zero1
        second = b(*_place(b, outer), depth, column).astype("int32") - zero2
        return te.sum(first * second, axis=depth)

    acc = te.compute(shape, element, name="matmul")
    return te_requantized(acc, attrs)


register_operator("qmatmul", 2, "Integer matrix product of two tensors", _infer, _define)
