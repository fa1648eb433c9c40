"""Integer quotient of two tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax, te, tirx
from ..numbers.affine import Affine
from .elementwise import broadcast_shape, infer_binary, read
from .registry import check_tensor, make_call, register_operator, tensor_type
from .requantize import saturated, te_saturate

# One step of the dividend times this saturates 8 bits, whatever else.
_LARGEST_RECIPROCAL = 512.0
# Fraction bits of a reciprocal: the largest still fits 32 bits.
_BITS = 21


def qdivide(
    a: relax.Expr,
    b: relax.Expr,
    table: relax.Expr,
    *,
    input1_zero_point: int,
    output_zero_point: int,
    qmin: int = -128,
    qmax: int = 127,
) -> relax.Call:
    """Quotient: (a - input1_zero_point) * table[b + 128] / 2**21, rounded half up, and the output's zero point.

    The table holds the reciprocals of all values of b in the output's steps; `reciprocals` makes it.

    Args:
        a: int8; shapes broadcast as in NumPy.
        b: int8.
        table: int32 (256,).
        input1_zero_point: Of a.
        output_zero_point: Of the result.
        qmin: Lower limit of the result.
        qmax: Upper limit.

    Returns:
        A call of type int8.
    """
    zero_points = {"input1_zero_point": input1_zero_point, "output_zero_point": output_zero_point}
    return make_call(_DIVIDE, [a, b, table], **zero_points, qmin=qmin, qmax=qmax)


def reciprocals(dividend_scale: float, divisor: Affine, output_scale: float) -> np.ndarray:
    """The table of `qdivide`: dividend scale / (divisor * output scale) for every value of the divisor.

    A divisor of zero counts as positive and infinitely small: the quotient saturates.

    Returns:
        int32 (256,).
    """
    steps = np.arange(-128, 128, dtype=np.float64) - divisor.zero_point
    with np.errstate(divide="ignore"):
        exact = np.where(steps == 0, np.inf, float(dividend_scale) / (steps * divisor.scale * float(output_scale)))
    return np.rint(np.clip(exact, -_LARGEST_RECIPROCAL, _LARGEST_RECIPROCAL) * 2.0**_BITS).astype(np.int32)


def divide(a: np.ndarray, b: np.ndarray, table: np.ndarray, attrs: Any) -> np.ndarray:
    """The reference of `qdivide` in NumPy."""
    product = (a.astype(np.int64) - int(attrs.input1_zero_point)) * table[b.astype(np.int32) + 128]
    rounded = (product + (1 << (_BITS - 1))) >> _BITS
    return saturated(rounded, attrs)


def _infer(call: relax.Call) -> relax.TensorType:
    check_tensor("qdivide", "the table", call.args[2], ("int32",), (256,))
    infer_binary(call)
    return tensor_type(broadcast_shape(call), "int8")


def _define(call: relax.Call, a: Any, b: Any, table: Any) -> Any:
    attrs = call.attrs

    def element(*index: Any) -> Any:
        value = read(a, index, int(attrs.input1_zero_point)).astype("int64")
        factor = table[read(b, index, -128)].astype("int64")
        half = tirx.const(1 << (_BITS - 1), "int64")
        rounded = tirx.shift_right(value * factor + half, tirx.const(_BITS, "int64"))
        return te_saturate(rounded, attrs)

    return te.compute(broadcast_shape(call), element, name="quotient")


_DIVIDE = register_operator("qdivide", 3, "Integer quotient", _infer, _define)
