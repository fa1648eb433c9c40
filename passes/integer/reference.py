"""What the integer operators mean, in NumPy; exact, for any batch size. The interpreter runs these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..reference.registry import Context, Value, ints, register_reference
from .division import divide
from .log_softmax import log_softmax
from .normalize import normalize
from .prelu import prelu
from .registry import NARROW, PREFIX, WIDE, result_dtype
from .requantize import multiply, requantized, saturated
from .shape import RESIZE_BITS
from .softmax import softmax
from .wide_softmax import wide_softmax

# Bytes of unfolded windows held at a time.
_UNFOLD_LIMIT = 48 << 20


def _padded(x: np.ndarray, padding: Sequence[int], value: int) -> np.ndarray:
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def _windows(x: np.ndarray, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> np.ndarray:
    """Windows (N, OH, OW, C, KH, KW) of a padded NHWC tensor, as a view."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    windows = sliding_window_view(x, spans, (1, 2))
    return windows[:, :: strides[0], :: strides[1], :, :: dilation[0], :: dilation[1]]


def _exact_dtype(weight: np.ndarray, x: np.ndarray) -> type:
    """A float type in which the sums of products of activations by weights (O, K) are exact; float32 is twice as fast."""
    span = 255 if x.dtype == np.int8 else 1 << 15
    largest = span * np.abs(weight.astype(np.int64)).sum(1).max(initial=0)
    return np.float32 if largest < 2**24 else np.float64


@register_reference(NARROW + "conv2d", WIDE + "conv2d")
def _qconv2d(args: Sequence[Value], context: Context) -> Value:
    x, weight, bias, multiplier, shift = args
    attrs = context.attrs
    zero, groups = int(attrs.input_zero_point), int(attrs.groups)
    o, kh, kw, depth = weight.shape
    kind = _exact_dtype(weight.reshape(o, -1), x)
    # Less the zero point, so that the border is 0.
    shifted = _padded(x.astype(kind) - kind(zero), ints(attrs.padding), 0)
    windows = _windows(shifted, (kh, kw), ints(attrs.strides), ints(attrs.dilation))
    n, oh, ow, c = windows.shape[:4]
    # (groups, KH * KW * depth, O / groups)
    matrix = weight.reshape(groups, o // groups, kh * kw * depth).transpose(0, 2, 1).astype(kind)
    out = np.empty((n, oh, ow, o), result_dtype(attrs))
    step = max(1, _UNFOLD_LIMIT // max(1, oh * ow * c * kh * kw * np.dtype(kind).itemsize))
    for start in range(0, n, step):
        part = windows[start : start + step]
        columns = part.reshape(-1, groups, depth, kh, kw).transpose(1, 0, 3, 4, 2).reshape(groups, -1, kh * kw * depth)
        acc = np.matmul(columns, matrix).transpose(1, 0, 2).reshape(len(part), oh, ow, o)
        out[start : start + step] = requantized(acc.astype(np.int64) + bias, attrs, multiplier, shift)
    return out


@register_reference(NARROW + "depthwise", WIDE + "depthwise")
def _qdepthwise(args: Sequence[Value], context: Context) -> Value:
    x, weight, bias, multiplier, shift = args
    attrs = context.attrs
    _, kh, kw, o = weight.shape
    kind = np.int32 if x.dtype == np.int8 else np.int64
    shifted = _padded(x.astype(kind) - kind(attrs.input_zero_point), ints(attrs.padding), 0)
    windows = _windows(shifted, (kh, kw), ints(attrs.strides), ints(attrs.dilation))
    factor = o // x.shape[3]
    acc = np.zeros((*windows.shape[:3], o), kind)
    for row, column in np.ndindex(kh, kw):
        tap = windows[..., row, column]
        acc += (tap if factor == 1 else tap.repeat(factor, 3)) * weight[0, row, column].astype(kind)
    return requantized(acc.astype(np.int64) + bias, attrs, multiplier, shift)


@register_reference(NARROW + "dense", WIDE + "dense")
def _qdense(args: Sequence[Value], context: Context) -> Value:
    x, weight, bias, multiplier, shift = args
    kind = _exact_dtype(weight, x)
    acc = ((x.astype(kind) - kind(context.attrs.input_zero_point)) @ weight.T.astype(kind)).astype(np.int64)
    return requantized(acc + bias, context.attrs, multiplier, shift)


def _operands(args: Sequence[Value], context: Context) -> tuple[np.ndarray, np.ndarray]:
    attrs = context.attrs
    return args[0].astype(np.int64) - int(attrs.input1_zero_point), args[1].astype(np.int64) - int(attrs.input2_zero_point)


@register_reference(NARROW + "add", WIDE + "add", NARROW + "sub", WIDE + "sub")
def _qadd(args: Sequence[Value], context: Context) -> Value:
    attrs = context.attrs
    a, b = _operands(args, context)
    rounding, left = str(attrs.rounding), int(attrs.left_shift)
    first = multiply(a << left, int(attrs.input1_multiplier), int(attrs.input1_shift), rounding)
    second = multiply(b << left, int(attrs.input2_multiplier), int(attrs.input2_shift), rounding)
    total = first + second if context.call.op.name.endswith("add") else first - second
    return requantized(total, attrs, int(attrs.output_multiplier), int(attrs.output_shift))


@register_reference(NARROW + "mul", WIDE + "mul")
def _qmul(args: Sequence[Value], context: Context) -> Value:
    a, b = _operands(args, context)
    return requantized(a * b, context.attrs)


@register_reference(PREFIX + "qmatmul")
def _qmatmul(args: Sequence[Value], context: Context) -> Value:
    # Sums of products of 9-bit integers in 32 bits are exact in double precision.
    a, b = (operand.astype(np.float64) for operand in _operands(args, context))
    return requantized(np.matmul(a, b).astype(np.int64), context.attrs)


@register_reference(PREFIX + "qdivide")
def _qdivide(args: Sequence[Value], context: Context) -> Value:
    a, b, table = args
    return divide(a, b, table, context.attrs)


@register_reference(PREFIX + "qprelu")
def _qprelu(args: Sequence[Value], context: Context) -> Value:
    x, slope = args
    return prelu(x, slope, context.attrs)


@register_reference(PREFIX + "qnormalize")
def _qnormalize(args: Sequence[Value], context: Context) -> Value:
    x, factor, offset = args
    return normalize(x, factor, offset, tuple(ints(context.attrs.axes)), context.attrs)


@register_reference(NARROW + "requantize", WIDE + "requantize")
def _qrequantize(args: Sequence[Value], context: Context) -> Value:
    attrs = context.attrs
    shifted = args[0].astype(np.int64) - int(attrs.input_zero_point)
    return requantized(shifted, attrs)


@register_reference(NARROW + "lut", WIDE + "lut")
def _qlut(args: Sequence[Value], context: Context) -> Value:
    x, table = args
    if x.dtype == np.int16:
        value, entries = x.astype(np.int32), table.astype(np.int32)
        place = (value >> 7) + 256
        return (entries[place] + (((entries[place + 1] - entries[place]) * (value & 127) + 64) >> 7)).astype(np.int16)
    return table[x.astype(np.int32) + 128]


@register_reference(PREFIX + "qsoftmax")
def _qsoftmax(args: Sequence[Value], context: Context) -> Value:
    return softmax(*args)


@register_reference(PREFIX + "qmaskedsoftmax")
def _qmaskedsoftmax(args: Sequence[Value], context: Context) -> Value:
    x, mask, table = args
    return softmax(x, table, mask)


@register_reference(PREFIX + "qlogsoftmax")
def _qlogsoftmax(args: Sequence[Value], context: Context) -> Value:
    x, exponentials, differences, logarithms = args
    return log_softmax(x, exponentials, differences, logarithms, context.attrs)


@register_reference(PREFIX + "wsoftmax")
def _wsoftmax(args: Sequence[Value], context: Context) -> Value:
    x, exponentials, reciprocals = args
    return wide_softmax(x, exponentials, reciprocals, int(context.attrs.multiplier), int(context.attrs.shift))


def _pool_windows(x: np.ndarray, context: Context, fill: int) -> np.ndarray:
    attrs = context.attrs
    return _windows(_padded(x, ints(attrs.padding), fill), ints(attrs.pool_size), ints(attrs.strides), (1, 1))


@register_reference(NARROW + "avgpool", WIDE + "avgpool")
def _qavgpool(args: Sequence[Value], context: Context) -> Value:
    x = args[0]
    total = _pool_windows(x.astype(np.int64), context, 0).sum((4, 5))
    count = _pool_windows(np.ones((1, *x.shape[1:3], 1), np.int64), context, 0).sum((4, 5))
    return saturated(np.sign(total) * ((np.abs(total) + count // 2) // count), context.attrs)


@register_reference(NARROW + "maxpool", WIDE + "maxpool")
def _qmaxpool(args: Sequence[Value], context: Context) -> Value:
    return saturated(_pool_windows(args[0], context, int(np.iinfo(args[0].dtype).min)).max((4, 5)), context.attrs)


@register_reference(NARROW + "mean", WIDE + "mean")
def _qmean(args: Sequence[Value], context: Context) -> Value:
    attrs = context.attrs
    shifted = args[0].astype(np.int64) - int(attrs.input_zero_point)
    total = shifted.sum(tuple(ints(attrs.axes)), keepdims=bool(attrs.keepdims))
    return requantized(total, attrs)


@register_reference(NARROW + "concat", WIDE + "concat")
def _qconcat(args: Sequence[Value], context: Context) -> Value:
    attrs = context.attrs
    parts = [
        requantized(tensor.astype(np.int64) - zero, attrs, multiplier, shift)
        for tensor, zero, multiplier, shift in zip(
            args[0], ints(attrs.input_zero_points), ints(attrs.multipliers), ints(attrs.shifts)
        )
    ]
    return np.concatenate(parts, int(attrs.axis))


@register_reference(NARROW + "pad", WIDE + "pad")
def _qpad(args: Sequence[Value], context: Context) -> Value:
    width = ints(context.attrs.pad_width)
    return np.pad(args[0], list(zip(width[::2], width[1::2])), constant_values=int(context.attrs.value))


@register_reference(NARROW + "resize", WIDE + "resize")
def _qresize(args: Sequence[Value], context: Context) -> Value:
    x, attrs = args[0], context.attrs
    rows, columns = ints(attrs.rows), ints(attrs.columns)
    if len(attrs.row_weights) == 0:
        return x[:, rows][:, :, columns]
    unit = 1 << RESIZE_BITS
    down = np.array(ints(attrs.row_weights)).reshape(1, -1, 1, 1)
    right = np.array(ints(attrs.column_weights)).reshape(1, 1, -1, 1)
    below = np.minimum(np.array(rows) + 1, x.shape[1] - 1)
    beside = np.minimum(np.array(columns) + 1, x.shape[2] - 1)
    wide = x.astype(np.int64)

    def line(index: Sequence[int] | np.ndarray) -> np.ndarray:
        taken = wide[:, index]
        return taken[:, :, columns] * (unit - right) + taken[:, :, beside] * right

    total = line(rows) * (unit - down) + line(below) * down
    half = 1 << (2 * RESIZE_BITS - 1)
    return (np.sign(total) * ((np.abs(total) + half) >> (2 * RESIZE_BITS))).astype(x.dtype)
