"""Integer rectifier with a slope of its own for each channel, TensorFlow Lite's PRELU."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx
from .elementwise import broadcast_shape, infer_binary, read
from .registry import register_operator
from .requantization import ScalarRequantization, requantized_call
from .requantize import requantized, te_requantize


def qprelu(
    x: relax.Expr,
    slope: relax.Expr,
    *,
    input_zero_point: int,
    slope_zero_point: int,
    negative_multiplier: int,
    negative_shift: int,
    **requantization: Unpack[ScalarRequantization],
) -> relax.Call:
    """x where it is positive, and x times a slope where it is not, onto the output's scale.

    Args:
        x: int8.
        slope: int8, broadcast as in NumPy.
        input_zero_point: Of x.
        slope_zero_point: Of the slope.
        negative_multiplier: Of input scale * slope scale / output scale.
        negative_shift: Of the same.
        requantization: By input scale / output scale.

    Returns:
        A call of type int8.
    """
    return requantized_call(
        "prelu",
        [x, slope],
        requantization,
        input_zero_point=input_zero_point,
        slope_zero_point=slope_zero_point,
        negative_multiplier=negative_multiplier,
        negative_shift=negative_shift,
    )


def prelu(x: np.ndarray, slope: np.ndarray, attrs: Any) -> np.ndarray:
    """The reference of `qprelu` in NumPy."""
    value = x.astype(np.int64) - int(attrs.input_zero_point)
    sloped = value * (slope.astype(np.int64) - int(attrs.slope_zero_point))
    below = requantized(sloped, attrs, int(attrs.negative_multiplier), int(attrs.negative_shift))
    return np.where(value >= 0, requantized(value, attrs), below)


def _define(call: relax.Call, x: Any, slope: Any) -> Any:
    attrs, shape = call.attrs, broadcast_shape(call)
    value = te.compute(shape, lambda *i: read(x, i, int(attrs.input_zero_point)), name="value")
    sloped = te.compute(shape, lambda *i: value(*i) * read(slope, i, int(attrs.slope_zero_point)), name="sloped")

    def element(*i: Any) -> Any:
        below = te_requantize(sloped(*i), attrs, int(attrs.negative_multiplier), int(attrs.negative_shift))
        return tirx.Select(value(*i) >= 0, te_requantize(value(*i), attrs), below)

    return te.compute(shape, element, name="rectified")


register_operator("qprelu", 2, "Integer rectifier with slopes", infer_binary, _define)
