"""Reductions, pooling, resizing, and operators that work along one axis."""

from __future__ import annotations

import numpy as np

from .._tvm import relax
from .atoms import STRUCTURAL
from .axes import Axes, Value, from_pairs
from .registry import Flow, NotCovered, Site, axis_in, ints, rule


def _reduced_axes(flow: Flow | Site, rank: int) -> list[int]:
    axis = flow.attrs.axis
    return list(range(rank)) if axis is None else [index % rank for index in ints(axis)]


def _reduce(flow: Flow, data: Axes, zero_stays: bool) -> Axes:
    axes = _reduced_axes(flow, len(data))
    pairs = []
    for index, (ids, zero) in enumerate(data.pairs()):
        if index not in axes:
            pairs.append((ids, zero if zero_stays else np.zeros(len(ids), bool)))
        elif flow.attrs.keepdims:
            pairs.append(flow.live(1))
    return from_pairs(pairs)


@rule("relax.sum")
def _sum(flow: Flow) -> Axes:
    data = flow.operand(0)
    for axis in _reduced_axes(flow, len(data)):
        ids, zero = data.pairs()[axis]
        flow.freeze(ids[~zero], f"{flow.name} sums over it and it is not zero where it is removed")
    return _reduce(flow, data, zero_stays=True)


def _rebuild_with_zeros(site: Site) -> relax.Expr:
    """Reckon with the zeros that were removed: they lower a mean, and bound a maximum and a minimum."""
    data = site.operand(0)
    sizes = [(len(site.kept(data.ids[axis])), len(data.ids[axis])) for axis in _reduced_axes(site, len(data))]
    if all(kept == size for kept, size in sizes):
        return site.same()
    result, dtype = site.emit(site.same()), str(site.call.ty.dtype)
    if site.call.op.name == "relax.mean":
        share = float(np.prod([kept / size for kept, size in sizes]))
        return relax.op.multiply(result, relax.const(share, dtype))
    bound = relax.op.maximum if site.call.op.name == "relax.max" else relax.op.minimum
    return bound(result, relax.const(0, dtype))


@rule("relax.mean", "relax.max", "relax.min", rebuild=_rebuild_with_zeros)
def _mean_or_bound(flow: Flow) -> Axes:
    data = flow.operand(0)
    for axis in _reduced_axes(flow, len(data)):
        ids, zero = data.pairs()[axis]
        flow.freeze(ids[~zero], f"{flow.name} reduces over it and it is not zero where it is removed")
    return _reduce(flow, data, zero_stays=True)


@rule("relax.prod", "relax.variance", "relax.std", "relax.median")
def _statistic(flow: Flow) -> Value:
    data = flow.operand(0)
    for axis in _reduced_axes(flow, len(data)):
        flow.freeze(data.ids[axis], f"{flow.name} reduces over it")
    result = _reduce(flow, data, zero_stays=flow.call.op.name != "relax.median")
    return result if hasattr(flow.call.ty, "shape") else [result, result.without_zero()]


@rule("relax.argmax", "relax.argmin")
def _argument(flow: Flow) -> Axes:
    data = flow.operand(0)
    axes = range(len(data)) if flow.attrs.axis is None else [int(flow.attrs.axis) % len(data)]
    for axis in axes:
        flow.freeze(data.ids[axis], f"{flow.name} counts positions along it")
    pairs = []
    for index, ids in enumerate(data.ids):
        if index not in axes:
            pairs.append((ids, np.zeros(len(ids), bool)))
        elif flow.attrs.keepdims:
            pairs.append(flow.live(1))
    return from_pairs(pairs)


@rule("relax.cumsum", "relax.cumprod", "relax.sort", "relax.argsort")
def _along_one_axis(flow: Flow) -> Axes:
    data = flow.operand(0)
    if flow.attrs.axis is None:
        raise NotCovered(f"{flow.name} flattens its operand")
    axis = int(flow.attrs.axis) % len(data)
    flow.freeze(data.ids[axis], f"{flow.name} works along it")
    return data if flow.call.op.name != "relax.argsort" else data.without_zero()


@rule("relax.topk")
def _top_k(flow: Flow) -> Value:
    data = flow.operand(0)
    axis = int(flow.attrs.axis) % len(data)
    flow.freeze(data.ids[axis], f"{flow.name} ranks along it")
    if hasattr(flow.call.ty, "shape"):
        raise NotCovered(f"{flow.name} returns one of its results only")
    count = int(flow.call.ty.fields[0].shape[axis])
    return [data.without_zero().with_axis(axis, *flow.fixed(count)) for _ in range(2)]


_POOLS = [f"relax.nn.{kind}_pool{dims}d" for kind in ("max", "avg", "adaptive_avg") for dims in (1, 2, 3)]


@rule(*_POOLS)
def _pool(flow: Flow) -> Axes:
    return _spatial(flow, str(flow.attrs.layout), str(flow.attrs.out_layout))


@rule("relax.image.resize2d", "relax.image.resize3d")
def _resize(flow: Flow) -> Axes:
    return _spatial(flow, str(flow.attrs.layout), str(flow.attrs.layout))


def _spatial(flow: Flow, layout: str, out_layout: str) -> Axes:
    """Batch and channels pass, spatial positions mix."""
    data = flow.operand(0)
    passing = {axis_in(out_layout, letter): axis_in(layout, letter) for letter in "NC"}
    for axis, ids in enumerate(data.ids):
        if axis not in passing.values():
            # Channels among the spatial axes, as in a normalization over neighbouring channels, are told of.
            flow.freeze(ids, f"{flow.name} mixes neighbouring positions of it" if flow.is_produced(ids) else STRUCTURAL)
    return from_pairs(
        [data.pairs()[passing[axis]] if axis in passing else flow.fixed(dim) for axis, dim in enumerate(flow.out_shape)]
    )


@rule("relax.nn.pixel_shuffle")
def _pixel_shuffle(flow: Flow) -> Axes:
    # Each output channel is woven from factor * factor successive input channels.
    data = flow.operand(0)
    factor = int(flow.attrs.upscale_factor)
    channel = len(data) - 3
    grid = data.ids[channel].reshape(-1, factor * factor)
    flow.tie(grid[:, :1], grid)
    zero = np.asarray(data.zero[channel].reshape(grid.shape).all(axis=1))
    for ids in data.ids[channel + 1 :]:
        flow.freeze(ids)
    tail = [flow.fixed(dim) for dim in flow.out_shape[channel + 1 :]]
    return from_pairs([*data.pairs()[:channel], (grid[:, 0], zero), *tail])
