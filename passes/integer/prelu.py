"""Integer rectifier with a slope of its own for each channel, TensorFlow Lite's PRELU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax, te, tirx
from .elementwise import broadcast_shape, infer_binary, read
from .registry import make_call, register_operator
from .requantize import multiply, te_multiply, te_saturate


def qprelu(
    x: relax.Expr,
    slope: relax.Expr,
    *,
    input_zero_point: int,
    slope_zero_point: int,
    output_zero_point: int,
    multiplier: int,
    shift: int,
    negative_multiplier: int,
    negative_shift: int,
    qmin: int = -128,
    qmax: int = 127,
    rounding: str = "double",
) -> relax.Call:
    """x where it is positive, and x times a slope where it is not, onto the output's scale.

    Args:
        x: int8.
        slope: int8, broadcast as in NumPy.
        input_zero_point: Of x.
        slope_zero_point: Of the slope.
        output_zero_point: Of the result.
        multiplier: Of input scale / output scale.
        shift: Of the same.
        negative_multiplier: Of input scale * slope scale / output scale.
        negative_shift: Of the same.
        qmin: Lower limit of the result.
        qmax: Upper limit.
        rounding: "double" or "single".

    Returns:
        A call of type int8.
    """
    return make_call(
        _PRELU,
        [x, slope],
        input_zero_point=input_zero_point,
        slope_zero_point=slope_zero_point,
        output_zero_point=output_zero_point,
        multiplier=multiplier,
        shift=shift,
        negative_multiplier=negative_multiplier,
        negative_shift=negative_shift,
        qmin=qmin,
        qmax=qmax,
        rounding=rounding,
    )


def prelu(x: np.ndarray, slope: np.ndarray, attrs: Any) -> np.ndarray:
    """The reference of `qprelu` in NumPy."""
    value = x.astype(np.int64) - int(attrs.input_zero_point)
    sloped = value * (slope.astype(np.int64) - int(attrs.slope_zero_point))
    rounding = str(attrs.rounding)
    above = multiply(value, int(attrs.multiplier), int(attrs.shift), rounding)
    below = multiply(sloped, int(attrs.negative_multiplier), int(attrs.negative_shift), rounding)
    result = np.where(value >= 0, above, below) + int(attrs.output_zero_point)
    return np.clip(result, int(attrs.qmin), int(attrs.qmax)).astype(np.int8)


def _define(call: relax.Call, x: Any, slope: Any) -> Any:
    attrs, shape = call.attrs, broadcast_shape(call)
    rounding = str(attrs.rounding)
    value = te.compute(shape, lambda *i: read(x, i, int(attrs.input_zero_point)), name="value")
    sloped = te.compute(shape, lambda *i: value(*i) * read(slope, i, int(attrs.slope_zero_point)), name="sloped")

    def scaled(raw: Any, multiplier: int, shift: int) -> Any:
        factor = te_multiply(raw, multiplier, shift, rounding, shift)
        return te_saturate(factor, int(attrs.output_zero_point), int(attrs.qmin), int(attrs.qmax), "int8")

    def element(*i: Any) -> Any:
        above = scaled(value(*i), int(attrs.multiplier), int(attrs.shift))
        below = scaled(sloped(*i), int(attrs.negative_multiplier), int(attrs.negative_shift))
        return tirx.Select(value(*i) >= 0, above, below)

    return te.compute(shape, element, name="rectified")


_PRELU = register_operator("qprelu", 2, "Integer rectifier with slopes", infer_binary, _define)
