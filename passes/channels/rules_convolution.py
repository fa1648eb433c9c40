"""Convolutions, plain, grouped, depthwise and transposed, in one, two and three dimensions and any layout.

A grouped convolution must keep groups of equal size, which leaves two ways of cutting it: whole groups (its inputs and
outputs of one group are one unit; a depthwise convolution is the case of one input a group), or the same positions of
every group. The way with more units is taken, since it removes with the finer measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._tvm import relax
from .atoms import STRUCTURAL, Role
from .axes import Axes, from_pairs
from .registry import Flow, NotCovered, Site, axis_in, ints, rule


@dataclass(frozen=True)
class _Geometry:
    """Where the axes of a convolution are."""

    batch: int
    channel: int
    out_batch: int
    out_channel: int
    weight_in: int
    weight_out: int
    groups: int

    @staticmethod
    def of(call: relax.Call) -> _Geometry:
        attrs = call.attrs
        return _Geometry(
            axis_in(attrs.data_layout, "N"),
            axis_in(attrs.data_layout, "C"),
            axis_in(attrs.out_layout, "N"),
            axis_in(attrs.out_layout, "C"),
            axis_in(attrs.kernel_layout, "I"),
            axis_in(attrs.kernel_layout, "O"),
            int(attrs.groups),
        )


def _by_whole_groups(groups: int, inputs: int, outputs: int) -> bool:
    """Whether whole groups are the finer cut, given the channels of all groups together."""
    return groups >= min(inputs, outputs) // groups


def _rebuild(site: Site) -> relax.Expr:
    geometry = _Geometry.of(site.call)
    inputs = site.operand(0).ids[geometry.channel]
    outputs = site.axes().ids[geometry.out_channel]
    if geometry.groups == 1 or not _by_whole_groups(geometry.groups, len(inputs), len(outputs)):
        return site.same()
    return site.with_attrs(groups=len(site.kept(inputs)) // (len(inputs) // geometry.groups))


@rule("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", rebuild=_rebuild)
def _convolution(flow: Flow) -> Axes:
    geometry = _Geometry.of(flow.call)
    data, weight = flow.operand(0), flow.operand(1)
    inputs, outputs = data.ids[geometry.channel], weight.ids[geometry.weight_out]
    inner = weight.ids[geometry.weight_in]
    flow.mark(outputs, Role.OUTPUT)
    if geometry.groups == 1 or not _by_whole_groups(geometry.groups, len(inputs), len(outputs)):
        _same_positions(flow, geometry, data, inner, weight.zero[geometry.weight_in])
        grid = outputs.reshape(geometry.groups, -1)
        flow.tie(grid[1:], grid[:1])
    else:
        _whole_groups(flow, geometry.groups, inputs, outputs)
        flow.freeze(inner)
    return _result(flow, geometry, data, weight, (outputs, weight.zero[geometry.weight_out]))


@rule("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose", rebuild=_rebuild)
def _transposed(flow: Flow) -> Axes:
    # The weight holds all input channels and the outputs of one group.
    geometry = _Geometry.of(flow.call)
    data, weight = flow.operand(0), flow.operand(1)
    inputs, inner = data.ids[geometry.channel], weight.ids[geometry.weight_out]
    rows = weight.ids[geometry.weight_in]
    if len(rows) != len(inputs):
        raise NotCovered(f"the weight of {flow.name} does not fit its input")
    count = len(inner) * geometry.groups
    flow.mark(rows, Role.INPUT)
    flow.mark(inner, Role.OUTPUT)
    if geometry.groups == 1 or not _by_whole_groups(geometry.groups, len(inputs), count):
        flow.contract(
            (inputs, data.zero[geometry.channel]),
            (rows, weight.zero[geometry.weight_in]),
        )
        grid = rows.reshape(geometry.groups, -1)
        flow.tie(grid[1:], grid[:1])
        outputs = np.tile(inner, geometry.groups), np.tile(weight.zero[geometry.weight_out], geometry.groups)
    else:
        # A group's outputs vanish with its rows of the weight.
        _whole_groups(flow, geometry.groups, inputs, rows)
        flow.freeze(inner)
        first = slice(None, None, len(inputs) // geometry.groups)
        zero = weight.zero[geometry.weight_in][first]
        outputs = np.repeat(rows[first], len(inner)), np.repeat(zero, len(inner))
    return _result(flow, geometry, data, weight, outputs)


def _same_positions(flow: Flow, geometry: _Geometry, data: Axes, inner: np.ndarray, inner_zero: np.ndarray) -> None:
    flow.mark(inner, Role.INPUT)
    groups = geometry.groups
    inputs, zero = data.pairs()[geometry.channel]
    if len(inputs) != len(inner) * groups:
        raise NotCovered(f"the weight of {flow.name} does not fit its input")
    flow.contract((inputs, zero), (np.tile(inner, groups), np.tile(inner_zero, groups)))


def _whole_groups(flow: Flow, groups: int, *channels: np.ndarray) -> None:
    root = channels[0].reshape(groups, -1)[:, :1]
    for ids in channels:
        flow.tie(root, ids.reshape(groups, -1))


def _passing(flow: Flow) -> dict[int, int]:
    """Spatial axes along which a kernel of one position works alone on each: output axis to input axis."""
    attrs = flow.attrs
    letters = [letter for letter in str(attrs.data_layout) if letter not in "NC"]
    padding, kernel = ints(attrs.padding), flow.operand(1).shape
    passing = {}
    for index, letter in enumerate(letters):
        pads = padding[index], padding[index - len(letters)]
        if kernel[axis_in(attrs.kernel_layout, letter)] == 1 and ints(attrs.strides)[index] == 1 and not any(pads):
            passing[axis_in(attrs.out_layout, letter)] = axis_in(attrs.data_layout, letter)
    return passing


def _result(flow: Flow, geometry: _Geometry, data: Axes, weight: Axes, channel: tuple[np.ndarray, np.ndarray]) -> Axes:
    passing = _passing(flow)
    for axis, ids in enumerate(weight.ids):
        if axis not in (geometry.weight_in, geometry.weight_out):
            flow.freeze(ids)
    for axis, ids in enumerate(data.ids):
        if axis not in (geometry.batch, geometry.channel) and axis not in passing.values():
            # Positions of an image need no reason, channels that are taken for positions do.
            flow.freeze(ids, f"{flow.name} slides over it" if flow.is_produced(ids) else STRUCTURAL)
    pairs = []
    for axis, dim in enumerate(flow.out_shape):
        if axis == geometry.out_channel:
            pairs.append(channel)
        elif axis == geometry.out_batch:
            pairs.append(data.pairs()[geometry.batch])
        elif axis in passing:
            pairs.append(data.pairs()[passing[axis]])
        else:
            pairs.append(flow.fixed(dim))
    return from_pairs(pairs)
