"""Layers with weights, attention and pooling in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..passes.reference.registry import ints
from .backend import Tensor, load_torch
from .operators import Call, Value, operator

torch = load_torch()
functional = torch.nn.functional

# The spatial axes of a layout, by rank.
_SPATIAL = {3: "W", 4: "HW", 5: "DHW"}


def _permuted(x: Tensor, layout: str, wanted: str) -> Tensor:
    return x if layout == wanted else x.permute([layout.index(axis) for axis in wanted])


def _function(name: str, rank: int) -> Any:
    """A function of `torch.nn.functional` for tensors of this rank, for instance conv2d for rank 4."""
    return getattr(functional, name.format(rank - 2))


def _both_sides(padding: Sequence[int], rank: int) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial axis."""
    before = list(padding[: rank - 2])
    return before, list(padding[rank - 2 :]) or before


def _pad(x: Tensor, before: Sequence[int], after: Sequence[int], fill: float = 0.0) -> Tensor:
    """Pad the last axes; PyTorch wants the last axis first."""
    widths = [width for pair in reversed(list(zip(before, after))) for width in pair]
    return functional.pad(x, widths, value=fill) if any(widths) else x


@operator("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
def _conv(args: Sequence[Value], call: Call) -> Value:
    attrs, rank = call.attrs, args[0].ndim
    first = "NC" + _SPATIAL[rank]
    x = _permuted(args[0], str(attrs.data_layout), first)
    w = _permuted(args[1], str(attrs.kernel_layout), "OI" + _SPATIAL[rank])
    before, after = _both_sides(ints(attrs.padding), rank)
    if before != after:
        x, before = _pad(x, before, after), [0] * (rank - 2)
    run, bias = _function("conv{}d", rank), args[2].reshape(-1) if len(args) > 2 else None
    out = run(x, w, bias, ints(attrs.strides), before, ints(attrs.dilation), int(attrs.groups))
    return _permuted(out, first, str(attrs.out_layout or attrs.data_layout))


@operator("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
def _conv_transposed(args: Sequence[Value], call: Call) -> Value:
    attrs, rank = call.attrs, args[0].ndim
    first = "NC" + _SPATIAL[rank]
    x = _permuted(args[0], str(attrs.data_layout), first)
    w = _permuted(args[1], str(attrs.kernel_layout), "IO" + _SPATIAL[rank])
    before, after = _both_sides(ints(attrs.padding), rank)
    run = _function("conv_transpose{}d", rank)
    # Whole first, cut afterwards: padding may differ on both sides, and PyTorch bounds what is added again.
    out = run(x, w, None, ints(attrs.strides), 0, 0, int(attrs.groups), ints(attrs.dilation))
    added = ints(attrs.output_padding)
    out = _pad(out, [-low for low in before], [more - high for high, more in zip(after, added)])
    return _permuted(out, first, str(attrs.out_layout or attrs.data_layout))


@operator("relax.matmul")
def _matmul(args: Sequence[Value], call: Call) -> Value:
    return torch.matmul(args[0], args[1])


@operator("relax.einsum")
def _einsum(args: Sequence[Value], call: Call) -> Value:
    return torch.einsum(str(call.attrs.subscripts), *args[0])


@operator("relax.nn.attention", "relax.nn.attention_bias")
def _attention(args: Sequence[Value], call: Call) -> Value:
    if call.attrs.causal_mask is not None or call.attrs.window_size is not None:
        raise call.unsupported("with a causal mask or a window")
    # (batch, positions, heads, size) to (batch, heads, positions, size)
    query, key, value = (tensor.transpose(1, 2) for tensor in args[:3])
    scale = 1 / math.sqrt(query.shape[-1]) if call.attrs.scale is None else float(call.attrs.scale)
    scores = query @ key.transpose(2, 3) * scale
    if len(args) > 3:
        scores = scores + args[3]
    return (scores.softmax(-1) @ value).transpose(1, 2)


def _padded(x: Tensor, call: Call, fill: float) -> Tensor:
    """A channels-first tensor padded so that pooling windows give the size of the call's result."""
    attrs = call.attrs
    layout = str(attrs.out_layout or attrs.layout)
    out = [int(call.call.ty.shape[layout.index(axis)]) for axis in _SPATIAL[x.ndim]]
    before, _ = _both_sides(ints(attrs.padding), x.ndim)
    sizes = zip(x.shape[2:], before, out, ints(attrs.pool_size), ints(attrs.strides), ints(attrs.dilation))
    # Negative where the last windows end before the tensor does.
    needed = [(o - 1) * s + (k - 1) * d + 1 - size - low for size, low, o, k, s, d in sizes]
    return _pad(x, before, needed, fill)


def _channels_first(x: Tensor, call: Call) -> Tensor:
    return _permuted(x, str(call.attrs.layout), "NC" + _SPATIAL[x.ndim])


def _as_asked(x: Tensor, call: Call) -> Tensor:
    return _permuted(x, "NC" + _SPATIAL[x.ndim], str(call.attrs.out_layout or call.attrs.layout))


@operator("relax.nn.max_pool1d", "relax.nn.max_pool2d", "relax.nn.max_pool3d")
def _max_pool(args: Sequence[Value], call: Call) -> Value:
    attrs = call.attrs
    x = _padded(_channels_first(args[0], call), call, -math.inf)
    pool = _function("max_pool{}d", x.ndim)
    return _as_asked(pool(x, ints(attrs.pool_size), ints(attrs.strides), 0, ints(attrs.dilation)), call)


@operator("relax.nn.avg_pool1d", "relax.nn.avg_pool2d", "relax.nn.avg_pool3d")
def _avg_pool(args: Sequence[Value], call: Call) -> Value:
    attrs = call.attrs
    if any(step != 1 for step in ints(attrs.dilation)):
        raise call.unsupported("with dilation")
    x = _channels_first(args[0], call)
    pool = _function("avg_pool{}d", x.ndim)
    out = pool(_padded(x, call, 0.0), ints(attrs.pool_size), ints(attrs.strides))
    if not attrs.count_include_pad:
        ones = _padded(torch.ones_like(x[:1, :1]), call, 0.0)
        out = out / pool(ones, ints(attrs.pool_size), ints(attrs.strides))
    return _as_asked(out, call)


@operator("relax.nn.adaptive_avg_pool1d", "relax.nn.adaptive_avg_pool2d", "relax.nn.adaptive_avg_pool3d")
def _adaptive_avg_pool(args: Sequence[Value], call: Call) -> Value:
    x, size = _channels_first(args[0], call), call.attrs.output_size
    sizes = list(x.shape[2:]) if size is None else ints(size)
    sizes = sizes * (x.ndim - 2) if len(sizes) == 1 else sizes
    return _as_asked(_function("adaptive_avg_pool{}d", x.ndim)(x, sizes), call)
