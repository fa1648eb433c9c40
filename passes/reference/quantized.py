"""Affine quantization: real = scale * (integer - zero_point)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .registry import Context, Value, register_reference


def _along(parameter: np.ndarray, axis: int, rank: int) -> np.ndarray:
    if parameter.ndim == 0 or parameter.size == 1:
        return parameter.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return parameter.reshape(shape)


@register_reference("relax.quantize")
def _quantize(args: Sequence[Value], context: Context) -> Value:
    x, scale, zero_point = args
    axis = int(context.attrs.axis) % max(x.ndim, 1)
    dtype = str(context.attrs.out_dtype)
    info = np.iinfo(dtype)
    # The division rounds in float32, half to even, as TVM's own definition does.
    scaled = np.rint(x / _along(scale, axis, x.ndim)) + _along(zero_point, axis, x.ndim).astype(x.dtype)
    return np.clip(scaled, info.min, info.max).astype(dtype)


@register_reference("relax.dequantize")
def _dequantize(args: Sequence[Value], context: Context) -> Value:
    q, scale, zero_point = args
    axis = int(context.attrs.axis) % max(q.ndim, 1)
    shifted = q.astype(np.int32) - _along(zero_point, axis, q.ndim).astype(np.int32)
    return (shifted.astype(np.float32) * _along(scale, axis, q.ndim)).astype(str(context.attrs.out_dtype))
