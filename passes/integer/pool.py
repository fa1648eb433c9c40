"""Integer pooling and means over NHWC tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .conv import output_size
from .registry import activation_dtypes, check_tensor, dtype_of, register_typed, result_dtype, tensor_type, typed_call
from .requantization import ScalarRequantization, requantized_call
from .requantize import te_requantized, te_saturate


def qavgpool(
    x: relax.Expr,
    *,
    pool_size: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int] = (0, 0, 0, 0),
    qmin: int = -128,
    qmax: int = 127,
) -> relax.Call:
    """Average pooling; scale and zero point stay.

    The sum over the part of the window that lies on the input, divided by the number of its elements, rounded half
    away from zero, clipped to [qmin, qmax].

    Args:
        x: int8 (N, H, W, C).
        pool_size: Rows, columns.
        strides: Rows, columns.
        padding: Top, left, bottom, right; each smaller than the window.

    Returns:
        A call of type int8 (N, OH, OW, C).
    """
    return typed_call("avgpool", [x], dtype_of(x), pool_size=pool_size, strides=strides, padding=padding, qmin=qmin, qmax=qmax)


def qmaxpool(
    x: relax.Expr,
    *,
    pool_size: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int] = (0, 0, 0, 0),
    qmin: int = -128,
    qmax: int = 127,
) -> relax.Call:
    """Maximum over the part of each window that lies on the input; arguments as of `qavgpool`."""
    return typed_call("maxpool", [x], dtype_of(x), pool_size=pool_size, strides=strides, padding=padding, qmin=qmin, qmax=qmax)


def qmean(
    x: relax.Expr,
    *,
    axes: Sequence[int],
    keepdims: bool,
    input_zero_point: int,
    **requantization: Unpack[ScalarRequantization],
) -> relax.Call:
    """Mean over axes, onto a scale of its own: requantize(sum(x - input_zero_point)).

    The division is part of the factor, as in TensorFlow Lite; `mean_multiplier` computes it.

    Args:
        x: int8, any shape.
        axes: Not negative.
        keepdims: Whether the axes stay with length 1.
        input_zero_point: Of x.
        requantization: By input scale / (output scale * number of elements).

    Returns:
        A call of type int8.
    """
    reduction = {"axes": axes, "keepdims": keepdims, "input_zero_point": input_zero_point}
    return requantized_call("mean", [x], requantization, **reduction)


def _infer_pool(call: relax.Call) -> relax.TensorType:
    name, attrs = call.op.name, call.attrs
    check_tensor(name, "the input", call.args[0], activation_dtypes(call), (None,) * 4)
    n, h, w, c = static_shape(call.args[0])
    (kh, kw), (sh, sw) = attrs.pool_size, attrs.strides
    top, left, bottom, right = attrs.padding
    if max(top, bottom) >= kh or max(left, right) >= kw:
        raise ValueError(f"{name}: the padding {tuple(attrs.padding)} is not smaller than the window {(kh, kw)}")
    out = (output_size(h, kh, sh, top, bottom), output_size(w, kw, sw, left, right))
    if min(out) < 1:
        raise ValueError(f"{name}: the window {(kh, kw)} is larger than the padded input {(h, w)}")
    return tensor_type((n, *out, c), result_dtype(call.attrs))


def mean_shape(shape: Sequence[int], axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    """The shape of a mean."""
    if keepdims:
        return tuple(1 if axis in axes else dim for axis, dim in enumerate(shape))
    return tuple(dim for axis, dim in enumerate(shape) if axis not in axes)


def _infer_mean(call: relax.Call) -> relax.TensorType:
    if dtype_of(call.args[0]) not in activation_dtypes(call):
        raise ValueError(f"qmean: the input must be int8, got {dtype_of(call.args[0])}")
    shape, axes = static_shape(call.args[0]), [int(axis) for axis in call.attrs.axes]
    if not axes or any(not 0 <= axis < len(shape) for axis in axes):
        raise ValueError(f"qmean: axes {axes} do not fit shape {shape}")
    return tensor_type(mean_shape(shape, axes, bool(call.attrs.keepdims)), result_dtype(call.attrs))


def _window(call: relax.Call) -> tuple[Any, Any]:
    kh, kw = call.attrs.pool_size
    return te.reduce_axis((0, kh), "kh"), te.reduce_axis((0, kw), "kw")


def _element(call: relax.Call, x: Any, fill: int, rows: Any, cols: Any) -> Any:
    """The reader of one element of a window as int32, `fill` outside the input."""
    _, h, w, _ = static_shape(call.args[0])
    (sh, sw), (top, left, bottom, right) = call.attrs.strides, call.attrs.padding

    def read(n: Any, i: Any, j: Any, k: Any) -> Any:
        row, col = i * sh + rows - top, j * sw + cols - left
        value = x[n, row, col, k].astype("int32")
        if not (top or left or bottom or right):
            return value
        inside = tirx.all(row >= 0, row < h, col >= 0, col < w)
        return tirx.if_then_else(inside, value, tirx.const(fill, "int32"))

    return read


def _define_avg(call: relax.Call, x: Any) -> Any:
    attrs = call.attrs
    shape = _infer_pool(call).shape
    _, h, w, _ = static_shape(call.args[0])
    (kh, kw), (sh, sw), (top, left, bottom, right) = attrs.pool_size, attrs.strides, attrs.padding
    rows, cols = _window(call)
    read = _element(call, x, 0, rows, cols)
    total = te.compute(shape, lambda *i: te.sum(read(*i), axis=[rows, cols]), name="sum")

    def covered(index: Any, stride: int, before: int, kernel: int, size: int) -> Any:
        start = index.astype("int32") * stride - before
        return tirx.min(start + kernel, tirx.const(size, "int32")) - tirx.max(start, tirx.const(0, "int32"))

    def mean(n: Any, i: Any, j: Any, k: Any) -> Any:
        count = tirx.const(kh * kw, "int32")
        if top or left or bottom or right:
            count = covered(i, sh, top, kh, h) * covered(j, sw, left, kw, w)
        half = tirx.truncdiv(count, tirx.const(2, "int32"))
        value = total[n, i, j, k]
        away = tirx.Select(value > 0, value + half, value - half)
        return te_saturate(tirx.truncdiv(away, count), attrs)

    return te.compute(shape, mean, name="average")


def _define_max(call: relax.Call, x: Any) -> Any:
    shape = _infer_pool(call).shape
    rows, cols = _window(call)
    read = _element(call, x, int(np.iinfo(result_dtype(call.attrs)).min), rows, cols)
    largest = te.compute(shape, lambda *i: te.max(read(*i), axis=[rows, cols]), name="largest")
    return te.compute(shape, lambda *i: te_saturate(largest(*i), call.attrs), name="maximum")


def _define_mean(call: relax.Call, x: Any) -> Any:
    attrs = call.attrs
    shape, axes, keepdims = static_shape(call.args[0]), [int(axis) for axis in attrs.axes], bool(attrs.keepdims)
    reduced = {axis: te.reduce_axis((0, shape[axis]), f"r{axis}") for axis in axes}
    out = mean_shape(shape, axes, keepdims)
    zero = tirx.const(int(attrs.input_zero_point), "int32")

    def element(*index: Any) -> Any:
        kept = iter(index if not keepdims else [i for axis, i in enumerate(index) if axis not in axes])
        place = [reduced[axis] if axis in reduced else next(kept) for axis in range(len(shape))]
        return te.sum(x(*place).astype("int32") - zero, axis=list(reduced.values()))

    total = te.compute(out, element, name="sum")
    return te_requantized(total, attrs)


register_typed("avgpool", 1, "Integer average pooling", _infer_pool, _define_avg)
register_typed("maxpool", 1, "Integer maximum pooling", _infer_pool, _define_max)
register_typed("mean", 1, "Integer mean with requantization", _infer_mean, _define_mean)


def mean_multiplier(multiplier: int, shift: int, count: int) -> tuple[int, int]:
    """Divide a factor, given as multiplier and shift, by a number of elements, as TensorFlow Lite's reduction does."""
    bits = min(int(np.floor(np.log2(count))), 32, 31 + shift)
    return (multiplier << bits) // count, shift - bits
