"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .registry import Context, Value, ints, register_reference


def _windows(x: np.ndarray, context: Context, fill: float) -> np.ndarray:
    """Windows (N, C, *out, *kernel) of a channels-first tensor, padded with `fill` to the size of the call's result."""
    attrs = context.attrs
    rank = x.ndim - 2
    pool, strides, dilation = ints(attrs.pool_size), ints(attrs.strides), ints(attrs.dilation)
    padding = ints(attrs.padding)
    before, after = padding[:rank], padding[rank:] or padding[:rank]
    layout = str(attrs.out_layout or attrs.layout)
    out = [int(context.call.ty.shape[layout.index(axis)]) for axis in "DHW"[3 - rank :]]
    pads = []
    for size, low, high, k, s, d, o in zip(x.shape[2:], before, after, pool, strides, dilation, out):
        needed = (o - 1) * s + (k - 1) * d + 1
        pads.append((low, max(high, needed - size - low)))
    x = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    spans = [(k - 1) * d + 1 for k, d in zip(pool, dilation)]
    windows = sliding_window_view(x, spans, tuple(range(2, 2 + rank)))
    steps = tuple(slice(None, (o - 1) * s + 1, s) for o, s in zip(out, strides))
    return windows[(slice(None), slice(None), *steps, *(slice(None, None, d) for d in dilation))]


def _first(x: np.ndarray, layout: str) -> np.ndarray:
    return np.moveaxis(x, layout.index("C"), 1)


def _back(x: np.ndarray, layout: str) -> np.ndarray:
    return np.moveaxis(x, 1, layout.index("C"))


@register_reference("relax.nn.max_pool1d", "relax.nn.max_pool2d")
def _max_pool(args: Sequence[Value], context: Context) -> Value:
    x, layout = args[0], str(context.attrs.layout)
    low = np.iinfo(x.dtype).min if np.issubdtype(x.dtype, np.integer) else -np.inf
    windows = _windows(_first(x, layout), context, low)
    return _back(windows.max(tuple(range(x.ndim, 2 * x.ndim - 2))), layout)


@register_reference("relax.nn.avg_pool1d", "relax.nn.avg_pool2d")
def _avg_pool(args: Sequence[Value], context: Context) -> Value:
    x, layout = args[0], str(context.attrs.layout)
    axes = tuple(range(x.ndim, 2 * x.ndim - 2))
    first = _first(x, layout)
    total = _windows(first, context, 0).sum(axes, dtype=x.dtype)
    if context.attrs.count_include_pad:
        count: np.ndarray | int = int(np.prod(ints(context.attrs.pool_size)))
    else:
        count = _windows(np.ones((1, 1, *first.shape[2:]), x.dtype), context, 0).sum(axes)
    return _back((total / count).astype(x.dtype), layout)


@register_reference("relax.nn.adaptive_avg_pool1d", "relax.nn.adaptive_avg_pool2d")
def _adaptive_avg_pool(args: Sequence[Value], context: Context) -> Value:
    x, layout = args[0], str(context.attrs.layout)
    first = _first(x, layout)
    sizes = ints(context.attrs.output_size) if context.attrs.output_size is not None else list(first.shape[2:])
    if len(sizes) == 1:
        sizes = sizes * (x.ndim - 2)
    for axis, size in enumerate(sizes, start=2):
        length = first.shape[axis]
        starts = [index * length // size for index in range(size)]
        ends = [-(-(index + 1) * length // size) for index in range(size)]
        parts = [first.take(range(a, b), axis).mean(axis, keepdims=True) for a, b in zip(starts, ends)]
        first = np.concatenate(parts, axis)
    return _back(first, layout)
