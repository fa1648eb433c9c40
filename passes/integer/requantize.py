"""From an int32 accumulator to an 8-bit result: multiplication by a real factor in integer arithmetic.

The factor is a mantissa and an exponent, `multiplier * 2**(shift - 31)`. Two roundings are defined:

- "double", TensorFlow Lite's: the product's upper half is rounded, then the right shift is rounded again (Jacob et
  al., 2018, section 2.2; `MultiplyByQuantizedMultiplier` in TensorFlow Lite). It is the default, so that results can
  be compared bit for bit with TensorFlow Lite's reference kernels and with CMSIS-NN.
- "single": one product, one rounding (the arithmetic that TensorFlow Lite has under TFLITE_SINGLE_ROUNDING).

A third one is for sums of products of int16 activations, which may need 48 bits:

- "reduced": the factor has 16 bits, `multiplier * 2**(shift - 15)`; one product in 64 bits, one rounding
  (`MultiplyByQuantizedMultiplier` of an int64 in TensorFlow Lite).

A positive shift multiplies first; where that leaves 32 bits, TensorFlow Lite's arithmetic is undefined and ours
saturates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .._tvm import te, tirx
from .registry import result_dtype

Rounding = Literal["double", "single"]
ROUNDINGS = ("double", "single")
# Bits behind the point of a multiplier.
_FRACTIONS = {"single": 31, "reduced": 15}
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

# Under single rounding factors in this range share one exponent, so that a target needs no shift of its own per
# channel: the result is then the upper half of one product. Outside, precision or overflow ask for an exponent of
# their own.
_SHARED_SHIFT = -1
_SHARED_RANGE = (2.0**-15, 0.5)


def quantize_multiplier(factor: float, rounding: str = "double") -> tuple[int, int]:
    """A real factor as (multiplier, shift): factor is close to multiplier * 2**(shift - 31).

    The multiplier is normalized to [2**30, 2**31), as TensorFlow Lite's `QuantizeMultiplier` does it, except under
    single rounding for the usual factors, which all have the shift -1. A factor below 2**-32 is 0.

    Args:
        factor: At least 0 and below 2**30.
        rounding: "double" or "single".

    Raises:
        ValueError: The factor is negative, not finite or too large.
    """
    if not (math.isfinite(factor) and 0 <= factor < 2.0**30):
        raise ValueError(f"a requantization factor must be in [0, 2**30), got {factor}")
    if rounding == "single" and _SHARED_RANGE[0] <= factor < _SHARED_RANGE[1]:
        multiplier = round(factor * 2.0 ** (31 - _SHARED_SHIFT))
        if multiplier <= INT32_MAX:
            return multiplier, _SHARED_SHIFT
    mantissa, shift = math.frexp(factor)
    # Half away from zero; the product is exact in a double.
    multiplier = math.floor(mantissa * 2.0**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return 0, 0
    return multiplier, shift


def quantize_multipliers(factors: Sequence[float], rounding: str = "double") -> tuple[np.ndarray, np.ndarray]:
    """`quantize_multiplier` for every factor: (multipliers, shifts), int32, shape (len(factors),)."""
    pairs = [quantize_multiplier(float(factor), rounding) for factor in factors]
    return np.array([q for q, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int32)


def reduce_multiplier(multiplier: int, shift: int) -> tuple[int, int]:
    """A factor for the rounding "reduced" from one for "double".

    Raises:
        ValueError: It is too large.
    """
    if shift > 14:
        raise ValueError(f"a requantization factor of 64-bit sums must be below 2**14, got a shift of {shift}")
    return (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF, shift


def multiply(x: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int, rounding: str) -> np.ndarray:
    """x * multiplier * 2**(shift - 31), rounded; exact in int64.

    Args:
        x: Integers in the range of int32, any shape; of 48 bits under the rounding "reduced".
        multiplier: Non-negative int32, broadcast against x.
        shift: In [-31, 30], broadcast against x.
        rounding: "double", "single" or "reduced".

    Returns:
        int64, the broadcast shape; in the range of int32 under double rounding.
    """
    x64, q = x.astype(np.int64), np.asarray(multiplier, np.int64)
    s = np.asarray(shift, np.int64)
    if rounding in _FRACTIONS:
        total = _FRACTIONS[rounding] - s
        return (x64 * q + (np.int64(1) << (total - 1))) >> total
    left, right = np.maximum(s, 0), np.maximum(-s, 0)
    if left.any():
        x64 = np.clip(x64 << left, INT32_MIN, INT32_MAX)
    # Rounds half up, which is what TensorFlow Lite's nudge and truncating division come to.
    high: np.ndarray = np.asarray(x64 * q)
    high += 1 << 30
    high >>= 31
    # Rounds half away from zero.
    half = (np.int64(1) << right) >> 1
    negative = high < 0
    if not right.all():
        negative = negative & (right > 0)
    return (high + half - negative) >> right


def requantize(
    acc: np.ndarray,
    multiplier: np.ndarray | int,
    shift: np.ndarray | int,
    zero_point: int,
    qmin: int,
    qmax: int,
    rounding: str,
) -> np.ndarray:
    """clip(multiply(acc) + zero_point, qmin, qmax) as int64."""
    return np.clip(multiply(acc, multiplier, shift, rounding) + zero_point, qmin, qmax)


def te_multiply(x: Any, multiplier: Any, shift: Any, rounding: str, max_shift: int) -> Any:
    """`multiply` as an expression.

    Args:
        x: An int32 expression; let it be a plain read of a buffer, since the simplifier would turn int64(a + b) into a
            sum of two 64-bit numbers and the product into a full 64-bit one.
        multiplier: An int32 expression or a Python integer.
        shift: The same.
        rounding: "double" or "single".
        max_shift: No shift is larger; at most 0 spares the left shift.

    Returns:
        int32 under double rounding, int64 under the others.
    """
    if isinstance(multiplier, int):
        multiplier = tirx.const(multiplier, "int32")
    x64, q = x.astype("int64"), multiplier.astype("int64")
    one = tirx.const(1, "int64")
    if rounding in _FRACTIONS:
        bits = _FRACTIONS[rounding]
        total = bits - shift.astype("int64") if not isinstance(shift, int) else tirx.const(bits - shift, "int64")
        return tirx.shift_right(x64 * q + tirx.shift_left(one, total - one), total)
    if max_shift > 0:
        left = max(shift, 0) if isinstance(shift, int) else tirx.max(shift, tirx.const(0, "int32"))
        left = tirx.const(left, "int64") if isinstance(left, int) else left.astype("int64")
        low, high = tirx.const(INT32_MIN, "int64"), tirx.const(INT32_MAX, "int64")
        x64 = tirx.max(tirx.min(te_shift_left(x64, left), high), low)
    product = tirx.shift_right(x64 * q + tirx.const(1 << 30, "int64"), tirx.const(31, "int64")).astype("int32")
    if isinstance(shift, int):
        return product if shift >= 0 else _te_rounding_shift(product, -shift)
    right = -shift if max_shift <= 0 else tirx.max(-shift, tirx.const(0, "int32"))
    return _te_rounding_shift(product, right)


def te_shift_left(x: Any, bits: Any) -> Any:
    """x << bits, of an unsigned number, since C, in which we also emit, leaves the left shift of a negative one undefined.

    Reinterpreted, not cast: TVM's simplifier takes the value of an unsigned cast for positive.
    """
    dtype = str(x.ty.dtype)
    unsigned = tirx.reinterpret(f"u{dtype}", x)
    return tirx.reinterpret(dtype, tirx.shift_left(unsigned, bits.astype(f"u{dtype}")))


def _te_rounding_shift(x: Any, right: Any) -> Any:
    """x / 2**right, half away from zero, without leaving int32; `right` is an int32 expression or a Python integer."""
    if isinstance(right, int):
        mask, right = tirx.const((1 << right) - 1, "int32"), tirx.const(right, "int32")
    else:
        ones = tirx.const(0xFFFFFFFF, "uint32")
        mask = tirx.bitwise_not(tirx.shift_left(ones, right.astype("uint32"))).astype("int32")
    remainder = tirx.bitwise_and(x, mask)
    threshold = tirx.shift_right(mask, tirx.const(1, "int32")) + (x < 0).astype("int32")
    return tirx.shift_right(x, right) + (remainder > threshold).astype("int32")


def saturated(x: np.ndarray, attrs: Any) -> np.ndarray:
    """clip(x + zero point, qmin, qmax) in the dtype of the result, by the attributes of the operator."""
    shifted = x + int(getattr(attrs, "output_zero_point", 0))
    return np.clip(shifted, int(attrs.qmin), int(attrs.qmax)).astype(result_dtype(attrs))


def requantized(
    acc: np.ndarray, attrs: Any, multiplier: np.ndarray | int | None = None, shift: np.ndarray | int | None = None
) -> np.ndarray:
    """`requantize` by the attributes of the operator, in the dtype of the result.

    Args:
        acc: As of `multiply`.
        attrs: The operator's.
        multiplier: Of a factor that is not the attributes `multiplier` and `shift`.
        shift: The same.
    """
    multiplier, shift = (attrs.multiplier, attrs.shift) if multiplier is None or shift is None else (multiplier, shift)
    return saturated(multiply(acc, multiplier, shift, str(attrs.rounding)), attrs)


def te_saturate(x: Any, attrs: Any) -> Any:
    """`saturated` as an expression, clipped before the addition so that it cannot overflow."""
    zero, kind = int(getattr(attrs, "output_zero_point", 0)), x.ty.dtype
    low, high = tirx.const(int(attrs.qmin) - zero, kind), tirx.const(int(attrs.qmax) - zero, kind)
    return (tirx.max(tirx.min(x, high), low) + tirx.const(zero, kind)).astype(result_dtype(attrs))


def te_requantize(acc: Any, attrs: Any, multiplier: Any = None, shift: Any = None) -> Any:
    """`requantized` as an expression; arguments as of that and of `te_multiply`."""
    multiplier, shift = (int(attrs.multiplier), int(attrs.shift)) if multiplier is None else (multiplier, shift)
    limit = shift if isinstance(shift, int) else int(attrs.max_shift)
    return te_saturate(te_multiply(acc, multiplier, shift, str(attrs.rounding), limit), attrs)


def te_requantized(acc: Any, attrs: Any) -> Any:
    """A tensor requantized by the attributes of its operator."""
    return te.compute(acc.shape, lambda *i: te_requantize(acc(*i), attrs), name="requantized")
