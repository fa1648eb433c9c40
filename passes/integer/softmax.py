"""Integer softmax: TensorFlow Lite's fixed-point arithmetic with the exponentials in a table.

The exponential of a difference between two int8 values has 256 possible arguments, so the table holds exactly what
TensorFlow Lite's reference kernel computes anew for every element.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._tvm import relax, te, tirx
from ..module_params import static_shape
from .fixed_point import (
    RECIPROCAL_A,
    RECIPROCAL_B,
    divide_by_power_of_two,
    exp_of_negative,
    high_product,
    reciprocal_of_one_plus,
)
from .registry import check_tensor, dtype_of, make_call, register_operator, tensor_type
from .requantize import INT32_MAX, quantize_multiplier

# Of every result.
OUTPUT_SCALE, OUTPUT_ZERO_POINT = 1.0 / 256.0, -128
# Integer bits of the difference that is exponentiated and of the sum of exponentials.
_DIFFERENCE_BITS, _SUM_BITS = 5, 12
# More elements than this, all equal, would overflow the sum.
MAX_ELEMENTS = (1 << _SUM_BITS) - 1


def qsoftmax(x: relax.Expr, table: relax.Expr) -> relax.Call:
    """Softmax over the last axis; the result has scale 1/256 and zero point -128.

    Args:
        x: int8 (..., K), K at most 4095.
        table: int32 (256,): `exponentials` of x's scale.

    Returns:
        A call of type int8, the shape of x.
    """
    return make_call(_SOFTMAX, [x, table])


def exponentials(scale: float, beta: float = 1.0) -> np.ndarray:
    """exp(-beta * scale * d) for d = 0, ..., 255, with 0 integer bits; 0 where TensorFlow Lite counts an element as
    nothing.

    Args:
        scale: Of softmax's input.
        beta: Factor on the input.

    Returns:
        int32 (256,).
    """
    factor = min(beta * float(scale) * (1 << (31 - _DIFFERENCE_BITS)), 2.0**31 - 1.0)
    multiplier, left = quantize_multiplier_above_one(factor)
    largest = math.floor(((1 << _DIFFERENCE_BITS) - 1) * 2.0 ** (31 - _DIFFERENCE_BITS) / 2.0**left)
    differences = -np.arange(256, dtype=np.int64)
    counted = differences >= -largest
    rescaled = high_product(np.where(counted, differences, 0) << left, multiplier)
    return np.where(counted, exp_of_negative(rescaled, _DIFFERENCE_BITS), 0).astype(np.int32)


def quantize_multiplier_above_one(factor: float) -> tuple[int, int]:
    """(multiplier, left shift) of a factor that may reach 2**31; a factor below 1 counts as 1."""
    exponent = max(math.frexp(factor)[1], 1)
    multiplier, shift = quantize_multiplier(max(factor, 1.0) * 2.0**-exponent)
    return multiplier, shift + exponent


def softmax(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The meaning of `qsoftmax` in NumPy."""
    differences = x.max(-1, keepdims=True).astype(np.int64) - x
    exps = table.astype(np.int64)[differences]
    total = divide_by_power_of_two(exps, _SUM_BITS).sum(-1, keepdims=True)
    leading = 31 - np.floor(np.log2(total)).astype(np.int64)
    scale = reciprocal_of_one_plus((total << leading) - (1 << 31))
    value = divide_by_power_of_two(high_product(scale, exps), _SUM_BITS - leading + 23)
    return np.clip(value - 128, -128, 127).astype(np.int8)


def _infer(call: relax.Call) -> relax.TensorType:
    shape = static_shape(call.args[0])
    if dtype_of(call.args[0]) != "int8" or not shape:
        raise ValueError(f"qsoftmax: the input must be an int8 tensor, got {call.args[0].ty}")
    if shape[-1] > MAX_ELEMENTS:
        raise ValueError(f"qsoftmax: at most {MAX_ELEMENTS} elements can be summed, got {shape[-1]}")
    check_tensor("qsoftmax", "the table", call.args[1], ("int32",), (256,))
    return tensor_type(shape, "int8")


def _high(a: Any, b: Any) -> Any:
    """`high_product` of two int32 expressions that are not both the smallest integer."""
    return tirx.shift_right(
        a.astype("int64") * b.astype("int64") + tirx.const(1 << 30, "int64"), tirx.const(31, "int64")
    ).astype("int32")


def _define(call: relax.Call, x: Any, table: Any) -> Any:
    shape = static_shape(call.args[0])
    rows, size = shape[:-1], shape[-1]
    along = te.reduce_axis((0, size), "k")
    largest = te.compute((*rows, 1), lambda *i: te.max(x(*i[:-1], along).astype("int32"), axis=along), name="largest")
    exps = te.compute(shape, lambda *i: table[largest(*i[:-1], 0) - x(*i).astype("int32")], name="exps")

    # Exponentials are not negative, so rounding half up is rounding half away from zero.
    def part(*i: Any) -> Any:
        value = exps(*i)
        return tirx.shift_right(value, tirx.const(_SUM_BITS, "int32")) + tirx.bitwise_and(
            tirx.shift_right(value, tirx.const(_SUM_BITS - 1, "int32")), tirx.const(1, "int32")
        )

    again = te.reduce_axis((0, size), "k")
    total = te.compute((*rows, 1), lambda *i: te.sum(part(*i[:-1], again), axis=again), name="total")

    def leading_zeros(*i: Any) -> Any:
        # The largest element contributes 2**19, so only 0 to 12 leading zeros occur.
        count = tirx.const(12, "int32")
        for bit in range(20, 31):
            count = count - (total(*i) >= tirx.const(1 << bit, "int32")).astype("int32")
        return count

    leading = te.compute((*rows, 1), leading_zeros, name="leading")
    unit = tirx.const(1 << 31, "int64")
    halves = te.compute(
        (*rows, 1),
        lambda *i: tirx.shift_right(
            tirx.shift_left(total(*i).astype("int64"), leading(*i).astype("int64"))
            - unit
            + tirx.const(INT32_MAX + 1, "int64"),
            tirx.const(1, "int64"),
        ).astype("int32"),
        name="halves",
    )
    x_n = te.compute(
        (*rows, 1),
        lambda *i: _high(halves(*i), tirx.const(RECIPROCAL_B, "int32")) + tirx.const(RECIPROCAL_A, "int32"),
        name="start",
    )
    for step in range(3):
        x_n = _newton(x_n, halves, (*rows, 1), step)

    def probability(*i: Any) -> Any:
        row = (*i[:-1], 0)
        scale = tirx.min(x_n(*row).astype("int64") * tirx.const(2, "int64"), tirx.const(INT32_MAX, "int64"))
        value = _high(scale.astype("int32"), exps(*i)).astype("int64")
        bits = (tirx.const(_SUM_BITS + 23, "int32") - leading(*row)).astype("int64")
        rounded = tirx.shift_right(value + tirx.shift_left(tirx.const(1, "int64"), bits - 1), bits)
        shifted = rounded - tirx.const(128, "int64")
        return tirx.max(tirx.min(shifted, tirx.const(127, "int64")), tirx.const(-128, "int64")).astype("int8")

    return te.compute(shape, probability, name="probability")


def _newton(previous: Any, halves: Any, shape: tuple[int, ...], step: int) -> Any:
    """One step of Newton's iteration for a reciprocal, with two integer bits."""
    error = te.compute(
        shape, lambda *i: tirx.const(1 << 29, "int32") - _high(halves(*i), previous(*i)), name=f"error{step}"
    )

    def improved(*i: Any) -> Any:
        change = _high(previous(*i), error(*i)).astype("int64") * tirx.const(4, "int64")
        limited = tirx.max(tirx.min(change, tirx.const(INT32_MAX, "int64")), tirx.const(-(2**31), "int64"))
        return previous(*i) + limited.astype("int32")

    return te.compute(shape, improved, name=f"newton{step}")


_SOFTMAX = register_operator("qsoftmax", 2, "Integer softmax", _infer, _define)
