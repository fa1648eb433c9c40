"""Normalizations and softmax.

What a normalization averages over must stay: its mean and variance are those of all positions. Over the other axes it
works position by position, so they may be cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._tvm import relax
from .atoms import Role
from .axes import Axes, Value, from_pairs
from .registry import Flow, Site, ints, rule


def _freeze_axes(flow: Flow, data: Axes, axes: Sequence[int]) -> None:
    for axis in axes:
        flow.freeze(data.ids[axis], f"{flow.name} normalizes over it")


def _scale_and_shift(flow: Flow, ids: np.ndarray, scale: Axes, shift: Axes) -> np.ndarray:
    """Tie a factor and an offset a channel; returns where both are zero."""
    flow.tie(ids, scale.ids[0])
    flow.tie(ids, shift.ids[0])
    flow.mark(scale.ids[0], Role.SCALE)
    flow.mark(shift.ids[0], Role.SHIFT)
    return scale.zero[0] & shift.zero[0]


@rule("relax.nn.batch_norm")
def _batch_norm(flow: Flow) -> Value:
    data = flow.operand(0)
    axis = int(flow.attrs.axis) % len(data)
    ids = data.ids[axis]
    zero = _scale_and_shift(flow, ids, flow.operand(1), flow.operand(2))
    mean, variance = flow.operand(3), flow.operand(4)
    flow.tie(ids, mean.ids[0])
    flow.tie(ids, variance.ids[0])
    return [data.without_zero().with_axis(axis, ids, zero), mean.without_zero(), variance.without_zero()]


@rule("relax.nn.layer_norm")
def _layer_norm(flow: Flow) -> Axes:
    data = flow.operand(0)
    axes = [axis % len(data) for axis in ints(flow.attrs.axes)]
    for parameter in (flow.operand(1), flow.operand(2)):
        for axis, ids in zip(axes, parameter.ids):
            flow.tie(data.ids[axis], ids)
    _freeze_axes(flow, data, axes)
    return data.without_zero()


@rule("relax.nn.rms_norm")
def _rms_norm(flow: Flow) -> Axes:
    data = flow.operand(0)
    axes = [axis % len(data) for axis in ints(flow.attrs.axes)]
    for axis, ids in zip(axes, flow.operand(1).ids):
        flow.tie(data.ids[axis], ids)
    _freeze_axes(flow, data, axes)
    return data


@rule("relax.nn.instance_norm")
def _instance_norm(flow: Flow) -> Axes:
    data = flow.operand(0)
    axis = int(flow.attrs.channel_axis) % len(data)
    _freeze_axes(flow, data, [axis % len(data) for axis in ints(flow.attrs.axes)])
    zero = _scale_and_shift(flow, data.ids[axis], flow.operand(1), flow.operand(2))
    return data.without_zero().with_axis(axis, data.ids[axis], zero)


def _rebuild_group_norm(site: Site) -> relax.Expr:
    data = site.operand(0)
    ids = data.ids[int(site.attrs.channel_axis) % len(data)]
    group = len(ids) // int(site.attrs.num_groups)
    return site.with_attrs(num_groups=len(site.kept(ids)) // group)


@rule("relax.nn.group_norm", rebuild=_rebuild_group_norm)
def _group_norm(flow: Flow) -> Axes:
    # Only whole groups can go: the mean and variance are those of a group.
    data = flow.operand(0)
    axis = int(flow.attrs.channel_axis) % len(data)
    _freeze_axes(flow, data, [axis % len(data) for axis in ints(flow.attrs.axes)])
    zero = _scale_and_shift(flow, data.ids[axis], flow.operand(1), flow.operand(2))
    grid = data.ids[axis].reshape(int(flow.attrs.num_groups), -1)
    flow.tie(grid[:, :1], grid)
    return data.without_zero().with_axis(axis, data.ids[axis], zero)


@rule("relax.nn.softmax", "relax.nn.log_softmax")
def _softmax(flow: Flow) -> Axes:
    data = flow.operand(0)
    _freeze_axes(flow, data, [int(flow.attrs.axis) % len(data)])
    return from_pairs(data.without_zero().pairs())
