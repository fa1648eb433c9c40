"""Integer softmax: TensorFlow Lite's fixed-point arithmetic with the exponentials in a table.

The exponential of a difference between two int8 values has 256 possible arguments, so the table holds exactly what
TensorFlow Lite's reference kernel computes anew for every element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
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
# Integer bits of the difference that is exponentiated, and the fewest of the sum of exponentials.
_DIFFERENCE_BITS, _SUM_BITS = 5, 12
# With more elements than this too little is left of each exponential.
MAX_ELEMENTS = (1 << 20) - 1


def qsoftmax(x: relax.Expr, table: relax.Expr) -> relax.Call:
    """Softmax over the last axis; the result has scale 1/256 and zero point -128.

    Args:
        x: int8 (..., K), K at most `MAX_ELEMENTS`. Up to 4095 the arithmetic is TensorFlow Lite's; its sum of exponentials
            would overflow with more, ours then has more integer bits.
        table: int32 (256,): `exponentials` of x's scale.

    Returns:
        A call of type int8, the shape of x.
    """
    return make_call(_SOFTMAX, [x, table])


def qmaskedsoftmax(x: relax.Expr, mask: relax.Expr, table: relax.Expr) -> relax.Call:
    """`qsoftmax` of those elements for which a mask is true; the others become 0, as do all where none is left.

    It stands for attention whose masked scores are minus infinity, or so low that no scale would hold them.

    Args:
        x: int8 (..., K).
        mask: bool, broadcast against x.
        table: int32 (256,): `exponentials` of x's scale.

    Returns:
        A call of type int8, the shape of x.
    """
    return make_call(_MASKED, [x, mask, table])


def sum_bits(count: int) -> int:
    """Integer bits of a sum of `count` exponentials: TensorFlow Lite's 12, or more where they would overflow."""
    return max(_SUM_BITS, count.bit_length())


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


def exponential_sum(
    x: np.ndarray, table: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(largest, exponentials, sum) of every row, int64; see `TeSum`."""
    kept = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask, x.shape)
    largest = np.where(kept, x, -128).max(-1, keepdims=True).astype(np.int64)
    exps = np.where(kept, table.astype(np.int64)[np.maximum(largest - x, 0)], 0)
    # It is zero where nothing is left.
    total = divide_by_power_of_two(exps, sum_bits(x.shape[-1])).sum(-1, keepdims=True)
    return largest, exps, np.maximum(total, 1)


def softmax(x: np.ndarray, table: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The reference of `qsoftmax`, and with a mask of `qmaskedsoftmax`, in NumPy."""
    bits = sum_bits(x.shape[-1])
    _, exps, total = exponential_sum(x, table, mask)
    leading = 31 - np.floor(np.log2(total)).astype(np.int64)
    scale = reciprocal_of_one_plus((total << leading) - (1 << 31))
    value = divide_by_power_of_two(high_product(scale, exps), bits - leading + 23)
    return np.clip(value - 128, -128, 127).astype(np.int8)


def _infer(call: relax.Call) -> relax.TensorType:
    shape = static_shape(call.args[0])
    name = call.op.name.rpartition(".")[2]
    if dtype_of(call.args[0]) != "int8" or not shape:
        raise ValueError(f"{name}: the input must be an int8 tensor, got {call.args[0].ty}")
    if shape[-1] > MAX_ELEMENTS:
        raise ValueError(f"{name}: at most {MAX_ELEMENTS} elements can be summed, got {shape[-1]}")
    check_tensor(name, "the table", call.args[-1], ("int32",), (256,))
    return tensor_type(shape, "int8")


def _infer_masked(call: relax.Call) -> relax.TensorType:
    found = _infer(call)
    shape, mask = static_shape(call.args[0]), static_shape(call.args[1])
    check_tensor("qmaskedsoftmax", "the mask", call.args[1], ("bool",), mask)
    if len(mask) > len(shape) or any(dim not in (1, size) for dim, size in zip(mask[::-1], shape[::-1])):
        raise ValueError(f"qmaskedsoftmax: a mask of shape {mask} does not fit {shape}")
    return found


def _high(a: Any, b: Any) -> Any:
    """`high_product` of two int32 expressions that are not both the smallest integer."""
    return tirx.shift_right(
        a.astype("int64") * b.astype("int64") + tirx.const(1 << 30, "int64"), tirx.const(31, "int64")
    ).astype("int32")


def _define_masked(call: relax.Call, x: Any, mask: Any, table: Any) -> Any:
    return _define(call, x, table, mask)


@dataclass(frozen=True)
class TeSum:
    """The exponentials of a softmax and their sum, as tensors.

    Attributes:
        largest: int32 (..., 1), of every row.
        exps: int32 (..., K), raw without integer bits.
        total: int32 (..., 1), raw with `sum_bits` integer bits.
        leading: int32 (..., 1): zeros in front of the first one of the 32 bits of the sum.
    """

    largest: Any
    exps: Any
    total: Any
    leading: Any


def te_sum(shape: tuple[int, ...], x: Any, table: Any, mask: Any = None) -> TeSum:
    """The exponentials of x (..., K), less its largest element, and their sum over the last axis."""
    rows, size = shape[:-1], shape[-1]
    bits = sum_bits(size)
    along = te.reduce_axis((0, size), "k")

    def kept(*i: Any) -> Any:
        own = i[len(i) - len(mask.shape) :]
        return mask(*(0 if int(dim) == 1 else k for dim, k in zip(mask.shape, own)))

    def element(*i: Any) -> Any:
        value = x(*i).astype("int32")
        return value if mask is None else tirx.Select(kept(*i), value, tirx.const(-128, "int32"))

    largest = te.compute((*rows, 1), lambda *i: te.max(element(*i[:-1], along), axis=along), name="largest")

    def exponential(*i: Any) -> Any:
        difference = largest(*i[:-1], 0) - x(*i).astype("int32")
        if mask is None:
            return table[difference]
        value = table[tirx.max(difference, tirx.const(0, "int32"))]
        return tirx.Select(kept(*i), value, tirx.const(0, "int32"))

    exps = te.compute(shape, exponential, name="exps")

    # Exponentials are not negative, so rounding half up is rounding half away from zero.
    def part(*i: Any) -> Any:
        value = exps(*i)
        return tirx.shift_right(value, tirx.const(bits, "int32")) + tirx.bitwise_and(
            tirx.shift_right(value, tirx.const(bits - 1, "int32")), tirx.const(1, "int32")
        )

    again = te.reduce_axis((0, size), "k")
    total = te.compute((*rows, 1), lambda *i: te.sum(part(*i[:-1], again), axis=again), name="total")

    def leading_zeros(*i: Any) -> Any:
        # The largest element contributes 2**(31 - bits), so no more than `bits` leading zeros occur.
        count = tirx.const(bits, "int32")
        for bit in range(32 - bits, 31):
            count = count - (total(*i) >= tirx.const(1 << bit, "int32")).astype("int32")
        return count

    return TeSum(largest, exps, total, te.compute((*rows, 1), leading_zeros, name="leading"))


def _define(call: relax.Call, x: Any, table: Any, mask: Any = None) -> Any:
    shape = static_shape(call.args[0])
    rows, bits = shape[:-1], sum_bits(shape[-1])
    summed = te_sum(shape, x, table, mask)
    exps, total, leading = summed.exps, summed.total, summed.leading
    unit = tirx.const(1 << 31, "int64")
    halves = te.compute(
        (*rows, 1),
        lambda *i: tirx.shift_right(
            tirx.shift_left(total(*i).astype("int64"), leading(*i).astype("int64")) - unit + tirx.const(INT32_MAX + 1, "int64"),
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
        down = (tirx.const(bits + 23, "int32") - leading(*row)).astype("int64")
        rounded = tirx.shift_right(value + tirx.shift_left(tirx.const(1, "int64"), down - 1), down)
        shifted = rounded - tirx.const(128, "int64")
        return tirx.max(tirx.min(shifted, tirx.const(127, "int64")), tirx.const(-128, "int64")).astype("int8")

    return te.compute(shape, probability, name="probability")


def _newton(previous: Any, halves: Any, shape: tuple[int, ...], step: int) -> Any:
    """One step of Newton's iteration for a reciprocal, with two integer bits."""
    error = te.compute(shape, lambda *i: tirx.const(1 << 29, "int32") - _high(halves(*i), previous(*i)), name=f"error{step}")

    def improved(*i: Any) -> Any:
        change = _high(previous(*i), error(*i)).astype("int64") * tirx.const(4, "int64")
        limited = tirx.max(tirx.min(change, tirx.const(INT32_MAX, "int64")), tirx.const(-(2**31), "int64"))
        return previous(*i) + limited.astype("int32")

    return te.compute(shape, improved, name=f"newton{step}")


_SOFTMAX = register_operator("qsoftmax", 2, "Integer softmax", _infer, _define)
_MASKED = register_operator("qmaskedsoftmax", 3, "Integer softmax of masked scores", _infer_masked, _define_masked)
