"""Normalizations and softmax.

A normalization works position by position over the axes that it does not average over, so they may be cut. Along those
that it does average over the mean and variance must stay those of all positions: where a removed position is zero, it is
put back as a zero for the normalization alone.
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


def _freeze_unless_zero(flow: Flow, data: Axes, axes: Sequence[int]) -> None:
    for axis in axes:
        ids, zero = data.pairs()[axis]
        flow.freeze(ids[~zero], f"{flow.name} normalizes over it and it is not zero where it is removed")


def _rebuild_with_zeros(site: Site) -> relax.Expr:
    """Normalize what is left together with zeros in the place of what was removed, then scale and shift what is left."""
    data = site.operand(0)
    group_norm = site.call.op.name == "relax.nn.group_norm"
    axes = [int(site.attrs.channel_axis) % len(data)] if group_norm else [a % len(data) for a in ints(site.attrs.axes)]
    sizes = {axis: len(site.kept(data.ids[axis])) for axis in axes}
    missing = {axis: len(data.ids[axis]) - size for axis, size in sizes.items()}
    if not any(missing.values()):
        return site.same()
    widths = [width for axis in range(len(data)) for width in (0, missing.get(axis, 0))]
    dtype = str(site.call.ty.dtype)
    whole = [len(data.ids[axis]) for axis in axes]
    plain = [relax.const(value(whole), dtype) for value in (np.ones, np.zeros)][: len(site.args) - 1]
    padded = site.emit(relax.op.nn.pad(site.args[0], widths))
    result = site.emit(relax.Call(site.call.op, [padded, *plain], site.call.attrs, site.call.ty_args))
    cut = [axis for axis in axes if missing[axis]]
    result = relax.op.strided_slice(result, cut, [0] * len(cut), [sizes[axis] for axis in cut])
    shape = [sizes.get(axis, 1) for axis in range(len(data))]
    for parameter, operator in zip(site.args[1:], (relax.op.multiply, relax.op.add)):
        if axes != list(range(len(data) - len(axes), len(data))):
            parameter = site.emit(relax.op.reshape(parameter, shape))
        result = operator(site.emit(result), parameter)
    return result


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


@rule("relax.nn.layer_norm", rebuild=_rebuild_with_zeros)
def _layer_norm(flow: Flow) -> Axes:
    data, scale, shift = flow.operand(0), flow.operand(1), flow.operand(2)
    axes = [axis % len(data) for axis in ints(flow.attrs.axes)]
    _freeze_unless_zero(flow, data, axes)
    result = data.without_zero()
    for axis, scales, shifts in zip(axes, scale.pairs(), shift.pairs()):
        ids = data.ids[axis]
        flow.tie(ids, scales[0])
        flow.tie(ids, shifts[0])
        flow.mark(scales[0], Role.SCALE)
        flow.mark(shifts[0], Role.SHIFT)
        result = result.with_axis(axis, ids, scales[1] & shifts[1])
    return result


@rule("relax.nn.rms_norm", rebuild=_rebuild_with_zeros)
def _rms_norm(flow: Flow) -> Axes:
    data = flow.operand(0)
    axes = [axis % len(data) for axis in ints(flow.attrs.axes)]
    for axis, ids in zip(axes, flow.operand(1).ids):
        flow.tie(data.ids[axis], ids)
    _freeze_unless_zero(flow, data, axes)
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
    if int(site.attrs.num_groups) == 1:
        return _rebuild_with_zeros(site)
    ids = data.ids[int(site.attrs.channel_axis) % len(data)]
    group = len(ids) // int(site.attrs.num_groups)
    return site.with_attrs(num_groups=len(site.kept(ids)) // group)


@rule("relax.nn.group_norm", rebuild=_rebuild_group_norm)
def _group_norm(flow: Flow) -> Axes:
    # Of several groups only whole ones can go: the mean and variance are those of a group.
    data = flow.operand(0)
    axis = int(flow.attrs.channel_axis) % len(data)
    _freeze_axes(flow, data, [axis % len(data) for axis in ints(flow.attrs.axes)])
    zero = _scale_and_shift(flow, data.ids[axis], flow.operand(1), flow.operand(2))
    if int(flow.attrs.num_groups) == 1:
        _freeze_unless_zero(flow, data, [axis])
    else:
        grid = data.ids[axis].reshape(int(flow.attrs.num_groups), -1)
        flow.tie(grid[:, :1], grid)
    return data.without_zero().with_axis(axis, data.ids[axis], zero)


@rule("relax.nn.softmax", "relax.nn.log_softmax")
def _softmax(flow: Flow) -> Axes:
    data = flow.operand(0)
    _freeze_axes(flow, data, [int(flow.attrs.axis) % len(data)])
    return from_pairs(data.without_zero().pairs())
