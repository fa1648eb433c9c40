"""Convolutions of every kind as convolutions of images, so that the kernels for those serve them all.

Sums of products of integers are exact in any order, so the results are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .._tvm import relax
from ..graph.module_params import static_shape
from ..integer.shape import qpad
from ..reference.registry import ints

Emit = Callable[[relax.Expr, str], relax.Var]


@dataclass(frozen=True)
class Conv2dForm:
    """A layer as a convolution of an NHWC image.

    Attributes:
        x: int8 (N, H, W, C).
        weight: Integers (O * copies, KH, KW, C / groups).
        strides: Rows, columns.
        padding: Top, left, bottom, right.
        dilation: Rows, columns.
        groups: Divides the channels.
        copies: How many neighbouring output channels stand for one of the layer's and share its scale and bias.
        finish: From the result to that of the layer.
    """

    x: relax.Expr
    weight: np.ndarray
    strides: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    copies: int
    finish: Callable[[relax.Expr], relax.Expr]


def conv2d_form(call: relax.Call, x: relax.Expr, zero_point: int, weight: np.ndarray, emit: Emit) -> Conv2dForm:
    """The form of a channels-last convolution.

    Args:
        call: Of `conv1d`, `conv2d`, `conv3d`, `conv1d_transpose` or `conv2d_transpose`; channels last.
        x: Its input, int8.
        zero_point: Of the input.
        weight: Integers, O*spatial*I, for transposed ones IO*spatial*.
        emit: Binds an expression to a name.
    """
    if "transpose" in call.op.name:
        return _transposed(call, x, weight, emit)
    attrs = call.attrs
    strides, padding, dilation = ints(attrs.strides), ints(attrs.padding), ints(attrs.dilation)
    groups = int(attrs.groups)
    if weight.ndim == 4:
        return Conv2dForm(x, weight, strides, padding, dilation, groups, 1, lambda result: result)
    if weight.ndim == 3:
        n, w, c = static_shape(x)
        image = emit(relax.op.reshape(x, (n, 1, w, c)), "row")
        geometry = ([1, *strides], [0, padding[0], 0, padding[-1]], [1, *dilation])
        return Conv2dForm(image, weight[:, None], *geometry, groups, 1, _reshaped(static_shape(call), emit))
    return _volume(call, x, zero_point, weight, emit)


def _reshaped(shape: Sequence[int], emit: Emit) -> Callable[[relax.Expr], relax.Expr]:
    return lambda result: relax.op.reshape(emit(result, "image"), tuple(shape))


def _volume(call: relax.Call, x: relax.Expr, zero_point: int, weight: np.ndarray, emit: Emit) -> Conv2dForm:
    """The slices that one slice of the result is computed from, side by side as channels."""
    attrs, groups = call.attrs, int(call.attrs.groups)
    (step, *strides), (spread, *dilation) = ints(attrs.strides), ints(attrs.dilation)
    padding = ints(attrs.padding)
    front, back = padding[0], padding[3]
    if front or back:
        x = emit(qpad(x, pad_width=[0, 0, front, back, 0, 0, 0, 0, 0, 0], value=zero_point), "padded")
    n, _, h, w, c = static_shape(x)
    o, depth, kh, kw, inner = weight.shape
    count = static_shape(call)[1]
    parts = []
    for tap in range(depth):
        start = tap * spread
        part = relax.op.strided_slice(x, [1], [start], [start + (count - 1) * step + 1], [step])
        shape = (n * count, h, w, groups, 1, c // groups)
        parts.append(emit(relax.op.reshape(emit(part, "slices"), shape), "slices"))
    joined = emit(relax.op.concat(parts, 4), "slices") if depth > 1 else parts[0]
    image = emit(relax.op.reshape(joined, (n * count, h, w, depth * c)), "slices")
    plane = weight.transpose(0, 2, 3, 1, 4).reshape(o, kh, kw, depth * inner)
    sides = [padding[1], padding[2], padding[4], padding[5]]
    return Conv2dForm(image, plane, strides, sides, dilation, groups, 1, _reshaped(static_shape(call), emit))


@dataclass(frozen=True)
class _Phases:
    """One axis of a transposed convolution of stride s as s ordinary ones, whose results interleave.

    Result t, counted before anything is cut off, is sum(x[a - m] * w[p + s * m]) over m, for t = s * a + p: the kernel
    has ceil(k / s) taps a phase p.

    Attributes:
        taps: Of the kernel of each phase.
        before: Padding of the input.
        after: Padding of the input.
        count: Positions a that are kept of those that come out.
        cut: Results that are cut off in front.
    """

    taps: int
    before: int
    after: int
    count: int
    cut: int


def _phases(size: int, kernel: int, stride: int, cut: int, length: int) -> _Phases:
    taps = -(-kernel // stride)
    first = min(cut // stride, taps - 1)
    count = -(-(cut + length) // stride) - first
    before = taps - 1 - first
    after = count - size - before + taps - 1
    return _Phases(taps, before, max(after, 0), count, cut - first * stride)


def _transposed(call: relax.Call, x: relax.Expr, weight: np.ndarray, emit: Emit) -> Conv2dForm:
    attrs, groups = call.attrs, int(call.attrs.groups)
    strides, padding, dilation = ints(attrs.strides), ints(attrs.padding), ints(attrs.dilation)
    shape = static_shape(call)
    if weight.ndim == 3:
        n, w, c = static_shape(x)
        x, weight = emit(relax.op.reshape(x, (n, 1, w, c)), "row"), weight[:, :, None]
        strides, dilation, padding = [1, *strides], [1, *dilation], [0, padding[0], 0, padding[-1]]
    n, h, w, c = static_shape(x)
    # A dilated kernel with its gaps filled up.
    kernel = [(size - 1) * gap + 1 for size, gap in zip(weight.shape[2:], dilation)]
    filled = np.zeros((*weight.shape[:2], *kernel), weight.dtype)
    filled[:, :, :: dilation[0], :: dilation[1]] = weight
    rows, columns = shape[-3] if len(shape) == 4 else 1, shape[-2]
    axes = [
        _phases(size, k, stride, cut, length)
        for size, k, stride, cut, length in zip((h, w), kernel, strides, padding[:2], (rows, columns))
    ]
    outer = weight.shape[1]
    taps = [axis.taps for axis in axes]
    whole = [count * stride for count, stride in zip(taps, strides)]
    even = np.zeros((c, outer, *whole), weight.dtype)
    even[:, :, : kernel[0], : kernel[1]] = filled
    split = even.reshape(groups, c // groups, outer, taps[0], strides[0], taps[1], strides[1])
    # Groups, outputs, phases; taps in the order of the input; inputs.
    split = np.flip(split, (3, 5)).transpose(0, 2, 4, 6, 3, 5, 1)
    copies = strides[0] * strides[1]
    plane = split.reshape(groups * outer * copies, *taps, c // groups)

    def finish(result: relax.Expr) -> relax.Expr:
        found = emit(result, "phases")
        counts = [axis.count for axis in axes]
        if list(static_shape(found)[1:3]) != counts:
            found = emit(relax.op.strided_slice(found, [1, 2], [0, 0], counts), "phases")
        spread = (n, *counts, groups * outer, *strides)
        if copies > 1:
            found = emit(relax.op.reshape(found, spread), "phases")
            found = emit(relax.op.permute_dims(found, [0, 1, 4, 2, 5, 3]), "interleaved")
        sizes = [count * stride for count, stride in zip(counts, strides)]
        found = emit(relax.op.reshape(found, (n, *sizes, groups * outer)), "interleaved")
        begin = [axis.cut for axis in axes]
        if sizes != [rows, columns] or any(begin):
            end = [begin[0] + rows, begin[1] + columns]
            found = emit(relax.op.strided_slice(found, [1, 2], begin, end), "cut")
        return found if len(shape) == 4 else relax.op.reshape(found, tuple(shape))

    padding = [axes[0].before, axes[1].before, axes[0].after, axes[1].after]
    return Conv2dForm(x, plane, [1, 1], padding, [1, 1], groups, copies, finish)
