"""Convolutions, as matrix products over unfolded windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .registry import Context, Value, ints, register_reference

# Bytes of unfolded windows held at a time: of many samples, and of a part of one, which then stays in a cache.
_UNFOLD_LIMIT = 48 << 20
_PART_LIMIT = 4 << 20
# The spatial axes of a layout, by rank.
_SPATIAL = {3: "W", 4: "HW", 5: "DHW"}


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> np.ndarray:
    """Convolution of x (N, C, *spatial) with w (O, C / groups, *kernel), in the dtype of x.

    Args:
        x: The input.
        w: The weights.
        strides: One per spatial axis.
        padding: Zeros before and after each spatial axis: all befores, then all afters.
        dilation: One per spatial axis.
        groups: Number of groups.
    """
    rank = x.ndim - 2
    before, after = padding[:rank], padding[rank:] or padding[:rank]
    x = np.pad(x, [(0, 0), (0, 0), *zip(before, after)]) if any(before) or any(after) else x
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation)]
    windows = sliding_window_view(x, spans, tuple(range(2, 2 + rank)))
    pick = (slice(None),) * 2 + tuple(slice(None, None, s) for s in strides)
    windows = windows[pick + tuple(slice(None, None, d) for d in dilation)]
    n, c = x.shape[:2]
    out_spatial = windows.shape[2 : 2 + rank]
    if groups == c and w.shape[1] == 1 and w.shape[0] == c:
        return _depthwise(windows, w, rank)
    positions, depth = int(np.prod(out_spatial)), c // groups * int(np.prod(w.shape[2:]))
    out = np.empty((n, w.shape[0], *out_spatial), x.dtype)
    matrix = w.reshape(groups, w.shape[0] // groups, depth)
    # One product over many samples: small ones, one a sample, are slow where BLAS has several threads.
    order = (1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank))
    size = max(1, positions * depth * groups * x.itemsize)
    step, rows = max(1, _UNFOLD_LIMIT // size), out_spatial[0]
    if size > _PART_LIMIT:
        step, rows = 1, max(1, out_spatial[0] * _PART_LIMIT // size)
    for start in range(0, n, step):
        for row in range(0, out_spatial[0], rows):
            part = windows[start : start + step, :, row : row + rows]
            shape = (len(part), *part.shape[2 : 2 + rank])
            columns = part.transpose(order).reshape(groups, depth, math.prod(shape))
            product = np.matmul(matrix, columns).reshape(w.shape[0], *shape)
            out[start : start + step, :, row : row + rows] = product.swapaxes(0, 1)
    return out


def _depthwise(windows: np.ndarray, w: np.ndarray, rank: int) -> np.ndarray:
    out = np.zeros(windows.shape[: 2 + rank], windows.dtype)
    for tap in np.ndindex(*w.shape[2:]):
        out += windows[(..., *tap)] * w[(slice(None), 0, *tap)].reshape(-1, *[1] * rank)
    return out


def _to_channels_first(x: np.ndarray, layout: str, wanted: str) -> np.ndarray:
    return x if layout == wanted else x.transpose([layout.index(axis) for axis in wanted])


def convolve_transposed(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> np.ndarray:
    """Transposed convolution of x (N, C, *spatial) with w (C, O / groups, *kernel), in the dtype of x.

    Args:
        x: The input.
        w: The weights.
        strides: One per spatial axis.
        padding: What is cut off before and after each spatial axis: all befores, then all afters.
        output_padding: What is added again after each spatial axis.
        dilation: One per spatial axis.
        groups: Number of groups.

    Raises:
        NotImplementedError: More is cut off than a kernel reaches.
    """
    rank = x.ndim - 2
    before, after = padding[:rank], padding[rank:] or padding[:rank]
    reach = [(k - 1) * d for k, d in zip(w.shape[2:], dilation)]
    margins = [(r - b, r - a + o) for r, b, a, o in zip(reach, before, after, output_padding)]
    if any(margin < 0 for pair in margins for margin in pair):
        raise NotImplementedError("a transposed convolution that cuts off more than its kernel reaches")
    # The input, spread apart by the strides, convolved with the mirrored kernel.
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], strides)]
    spread = np.zeros((*x.shape[:2], *(n + sum(margin) for n, margin in zip(size, margins))), x.dtype)
    places = tuple(slice(margin[0], margin[0] + n, s) for n, s, margin in zip(size, strides, margins))
    spread[(slice(None), slice(None), *places)] = x
    kernel = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]).swapaxes(1, 2)
    kernel = np.flip(kernel.reshape(-1, w.shape[0] // groups, *w.shape[2:]), tuple(range(2, 2 + rank)))
    return convolve(spread, kernel, [1] * rank, [0] * 2 * rank, dilation, groups)


@register_reference("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
def _conv_transposed(args: Sequence[Value], context: Context) -> Value:
    attrs = context.attrs
    spatial = _SPATIAL[args[0].ndim]
    x = _to_channels_first(args[0], str(attrs.data_layout), "NC" + spatial)
    w = _to_channels_first(args[1], str(attrs.kernel_layout), "IO" + spatial)
    if np.issubdtype(x.dtype, np.integer):
        x, w = x.astype(np.float64), w.astype(np.float64)
    strides, padding, dilation = ints(attrs.strides), ints(attrs.padding), ints(attrs.dilation)
    out = convolve_transposed(x, w, strides, padding, ints(attrs.output_padding), dilation, int(attrs.groups))
    out_layout = str(attrs.out_layout or attrs.data_layout)
    if out_layout != "NC" + spatial:
        out = out.transpose([("NC" + spatial).index(axis) for axis in out_layout])
    return out.astype(str(context.call.ty.dtype), copy=False)


@register_reference("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
def _conv(args: Sequence[Value], context: Context) -> Value:
    attrs = context.attrs
    spatial = _SPATIAL[args[0].ndim]
    layout, kernel = str(attrs.data_layout), str(attrs.kernel_layout)
    x = _to_channels_first(args[0], layout, "NC" + spatial)
    w = _to_channels_first(args[1], kernel, "OI" + spatial)
    out_dtype = str(context.call.ty.dtype)
    if np.issubdtype(x.dtype, np.integer):
        # Exact: products and sums of int8 or int16 stay below 2**53.
        x, w = x.astype(np.float64), w.astype(np.float64)
    out = convolve(x, w, ints(attrs.strides), ints(attrs.padding), ints(attrs.dilation), int(attrs.groups))
    out_layout = str(attrs.out_layout or layout)
    if out_layout != "NC" + spatial:
        out = out.transpose([("NC" + spatial).index(axis) for axis in out_layout])
    return out.astype(out_dtype, copy=False)
