"""Requantization for x86 vectors: the same numbers as `passes.integer.requantize` with fewer instructions.

Double rounding ends with a right shift that rounds half away from zero. In general that takes a mask, a remainder and a
comparison, so that nothing overflows. Where the accumulator is known to be small and every shift goes to the right it
is `(high + half + sign(high)) >> right`, with `sign` 0 or -1: five instructions instead of nine. The zero point, times
2**right, is part of `half` where that still fits int32; clipping to all of int8 is then the saturation of one instruction.

`float_requantize` and `wide_requantize` have what is done in whole registers of 256 or 512 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....passes._tvm import te, tirx
from ....passes.integer.requantize import te_requantize, te_saturate
from .exact_factors import FLOAT, FLOAT_SIGNED
from .float_requantize import float_requantized
from .wide_requantize import NONE, wide_requantized


def short_forms(weight: np.ndarray, bias: np.ndarray, shift: np.ndarray, attrs: Any) -> dict[str, bool]:
    """Attributes of a kernel: `simple` and `early`, whether `shifts_simply` without and with the zero point.

    Args:
        weight: int8 (O, everything else).
        bias: int32 (O,).
        shift: int32 (O,).
        attrs: `rounding` and `output_zero_point`.
    """
    rounding = str(attrs.rounding)
    early = shifts_simply(weight, bias, shift, rounding, int(attrs.output_zero_point))
    return {"simple": early or shifts_simply(weight, bias, shift, rounding), "early": early}


def shifts_simply(weight: np.ndarray, bias: np.ndarray, shift: np.ndarray, rounding: str, zero_point: int = 0) -> bool:
    """Whether the short form is exact for a layer.

    Args:
        weight: int8 (O, everything else).
        bias: int32 (O,).
        shift: int32 (O,), negative to the right.
        rounding: "double" or "single".
        zero_point: Of the result, where it is added before the shift.
    """
    if rounding != "double" or int(shift.max()) >= 0:
        return False
    # x - zero point is at most 255 in magnitude, and high is not larger than the accumulator.
    largest = 255 * np.abs(weight.astype(np.int64)).sum(1) + np.abs(bias.astype(np.int64))
    half = np.left_shift(np.int64(1), -shift.astype(np.int64)) >> 1
    zero = np.left_shift(np.int64(abs(zero_point)), -shift.astype(np.int64))
    return bool((largest + half + zero < 2**31).all())


def te_multiply_small(x: Any, multiplier: int, right: int) -> Any:
    """x * multiplier * 2**(-31 - right), rounded twice, for x of magnitude below 2**30, as an expression.

    Args:
        x: An int32 expression; let it be a plain read of a buffer, see `passes.integer.requantize.te_multiply`.
        multiplier: In [0, 2**31).
        right: In [0, 31].
    """
    product = x.astype("int64") * tirx.const(multiplier, "int64") + tirx.const(1 << 30, "int64")
    high = tirx.shift_right(product, tirx.const(31, "int64")).astype("int32")
    if right == 0:
        return high
    sign = tirx.shift_right(high, tirx.const(31, "int32"))
    return tirx.shift_right(high + tirx.const(1 << (right - 1), "int32") + sign, tirx.const(right, "int32"))


def requantized(acc: Any, shape: Sequence[int], bias: Any, multiplier: Any, shift: Any, attrs: Any) -> Any:
    """Bias and requantization along the last axis.

    Args:
        acc: int32, without bias.
        shape: Of the result; what goes beyond it is left out.
        bias: int32 (O,); that, and the next two, as `wide_requantize` has them where `attrs` have its form.
        multiplier: int32 (O,).
        shift: int32 (O,).
        attrs: Those of the integer operators, `short_forms`, and `wide`, where it is given.
    """
    if int(getattr(attrs, "wide", NONE)) != NONE:
        define = float_requantized if int(attrs.wide) in (FLOAT, FLOAT_SIGNED) else wide_requantized
        result = define(acc, bias, multiplier, shift, attrs)
        # No intrinsic takes a tile with a condition: what only fills up the last one is left out afterwards.
        same = [int(extent) for extent in acc.shape] == [int(extent) for extent in shape]
        return result if same else te.compute(shape, lambda *i: result(*i), name="kept")
    # The biased sum is a buffer of its own: the simplifier would otherwise widen its two operands.
    biased = te.compute(shape, lambda *i: acc(*i) + bias[i[-1]], name="biased")

    def element(*i: Any) -> Any:
        return requantized_element(biased(*i), multiplier[i[-1]], shift[i[-1]], attrs)

    return te.compute(shape, element, name="requantized")


def requantized_element(value: Any, multiplier: Any, shift: Any, attrs: Any) -> Any:
    """An int8 result of a biased sum.

    Args:
        value: int32, a plain read of a buffer, see `passes.integer.requantize.te_multiply`.
        multiplier: int32.
        shift: int32.
        attrs: As of `requantized`.
    """
    if not bool(attrs.simple):
        return te_requantize(value, attrs, multiplier, shift)
    return _rounded(_high(value, multiplier), shift, attrs)


def _high(value: Any, multiplier: Any) -> Any:
    """value * multiplier * 2**-31, rounded: the upper half of twice the product."""
    rounded = value.astype("int64") * multiplier.astype("int64") + tirx.const(1 << 30, "int64")
    return tirx.shift_right(rounded, tirx.const(31, "int64")).astype("int32")


def _rounded(high: Any, shift: Any, attrs: Any) -> Any:
    """The int8 result of what `_high` gives."""
    half = tirx.shift_left(tirx.const(1, "int32"), -shift - tirx.const(1, "int32"))
    sign = tirx.shift_right(high, tirx.const(31, "int32"))
    if not bool(attrs.early):
        return te_saturate(tirx.shift_right(high + half + sign, -shift), attrs)
    half = half + tirx.shift_left(tirx.const(int(attrs.output_zero_point), "int32"), -shift)
    least, most = (tirx.const(int(limit), "int32") for limit in (attrs.qmin, attrs.qmax))
    return tirx.max(tirx.min(tirx.shift_right(high + half + sign, -shift), most), least).astype("int8")
