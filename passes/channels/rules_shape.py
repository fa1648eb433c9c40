"""Operators that move positions: permute, concat, split, slices, gathers, padding, broadcasting, repetition."""

from __future__ import annotations

import numpy as np

from .._tvm import relax, tirx
from .axes import Axes, Value, from_pairs
from .registry import Flow, NotCovered, Site, constant_value, ints, rule


@rule("relax.permute_dims")
def _permute_dims(flow: Flow) -> Axes:
    data = flow.operand(0)
    axes = flow.attrs.axes
    order = range(len(data))[::-1] if axes is None else [axis % len(data) for axis in ints(axes)]
    return from_pairs([data.pairs()[axis] for axis in order])


@rule("relax.expand_dims")
def _expand_dims(flow: Flow) -> Axes:
    rank = len(flow.out_shape)
    added = {axis % rank for axis in ints(flow.attrs.axis)}
    old = iter(flow.operand(0).pairs())
    return from_pairs([flow.live(1) if axis in added else next(old) for axis in range(rank)])


@rule("relax.squeeze")
def _squeeze(flow: Flow) -> Axes:
    data = flow.operand(0)
    axis = flow.attrs.axis
    gone = [i for i, dim in enumerate(data.shape) if dim == 1] if axis is None else [i % len(data) for i in ints(axis)]
    # Named axes only: once an axis has a single channel left, it must not vanish.
    if axis is None:
        for ids in data.ids:
            flow.freeze(ids, f"{flow.name} squeezes every axis of one position")
    return from_pairs([pair for index, pair in enumerate(data.pairs()) if index not in gone])


def _all_zero(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return pairs[0][0], np.logical_and.reduce([zero for _, zero in pairs])


@rule("relax.concat")
def _concat(flow: Flow) -> Axes:
    tensors = flow.fields(0)
    rank = len(tensors[0])
    if flow.attrs.axis is None and rank > 1:
        raise NotCovered(f"{flow.name} flattens its operands")
    axis = int(flow.attrs.axis or 0) % rank
    pairs = []
    for index in range(rank):
        parts = [tensor.pairs()[index] for tensor in tensors]
        if index == axis:
            pairs.append((np.concatenate([ids for ids, _ in parts]), np.concatenate([zero for _, zero in parts])))
            continue
        for ids, _ in parts[1:]:
            flow.tie(parts[0][0], ids)
        pairs.append(_all_zero(parts))
    return from_pairs(pairs)


@rule("relax.stack")
def _stack(flow: Flow) -> Axes:
    tensors = flow.fields(0)
    pairs = []
    for parts in zip(*(tensor.pairs() for tensor in tensors)):
        for ids, _ in parts[1:]:
            flow.tie(parts[0][0], ids)
        pairs.append(_all_zero(list(parts)))
    pairs.insert(int(flow.attrs.axis) % (len(pairs) + 1), flow.fixed(len(tensors)))
    return from_pairs(pairs)


def _rebuild_split(site: Site) -> relax.Expr:
    axis = int(site.attrs.axis) % len(site.operand(0))
    assert isinstance(site.result, list)
    sizes = [len(site.kept(field.ids[axis])) for field in site.result if isinstance(field, Axes)]
    if len(set(sizes)) == 1 and isinstance(site.attrs.indices_or_sections, tirx.IntImm):
        return site.same()
    return relax.op.split(site.args[0], [int(end) for end in np.cumsum(sizes)[:-1]], axis)


@rule("relax.split", rebuild=_rebuild_split)
def _split(flow: Flow) -> Value:
    data = flow.operand(0)
    axis = int(flow.attrs.axis) % len(data)
    ids, zero = data.pairs()[axis]
    sections = flow.attrs.indices_or_sections
    if hasattr(sections, "__len__"):
        cuts = np.asarray(ints(sections), np.int64)
    else:
        size = -(-len(ids) // int(sections))
        cuts = np.arange(size, len(ids), size)
    parts = zip(np.split(ids, cuts), np.split(zero, cuts))
    return [data.with_axis(axis, *part) for part in parts]


def _slices(call: relax.Call, shape: tuple[int, ...]) -> dict[int, np.ndarray]:
    """The positions taken along each sliced axis."""
    if any(not isinstance(arg, relax.Tuple) for arg in call.args[1:]):
        raise NotCovered("a slice whose bounds are computed is not covered")
    axes, begins, ends = (ints(arg) for arg in call.args[1:4])
    strides = ints(call.args[4]) if len(call.args) > 4 else [1] * len(axes)
    taken = {}
    for axis, begin, end, stride in zip(axes, begins, ends, strides):
        size = shape[axis]
        # A bound before the first position means "from the front" when going up, "past it" when going down.
        low, high = (0, size) if stride > 0 else (-1, size - 1)
        begin = min(max(begin + size if begin < 0 else begin, low), high)
        end = min(max(end + size if end < 0 else end, low), high)
        taken[axis % len(shape)] = np.arange(begin, end, stride)
    return taken


def _new_positions(site: Site, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Where the positions that stay lie once the others are gone."""
    kept = site.kept(ids)
    rank = np.full(len(ids), -1)
    rank[kept] = np.arange(len(kept))
    new = rank[positions]
    return new[new >= 0]


def _rebuild_strided_slice(site: Site) -> relax.Expr:
    data = site.operand(0)
    if site.shape(data) == list(data.shape):
        return site.same()
    result = site.args[0]
    for axis, positions in _slices(site.call, data.shape).items():
        new = _new_positions(site, data.ids[axis], positions)
        selected = site.select(result, axis, len(site.kept(data.ids[axis])), new)
        result = selected if selected is result else site.emit(selected)
    return result


@rule("relax.strided_slice", rebuild=_rebuild_strided_slice)
def _strided_slice(flow: Flow) -> Axes:
    data = flow.operand(0)
    result = data
    for axis, positions in _slices(flow.call, data.shape).items():
        result = result.with_axis(axis, data.ids[axis][positions], data.zero[axis][positions])
    if result.shape != flow.out_shape:
        raise NotCovered(f"the bounds of {flow.name} are not covered")
    return result


def _rebuild_take(site: Site) -> relax.Expr:
    index = constant_value(site.call.args[1])
    data = site.operand(0)
    axis = int(site.attrs.axis or 0) % len(data)
    if index is None or len(site.kept(data.ids[axis])) == len(data.ids[axis]):
        return site.same()
    positions = np.where(index < 0, index + len(data.ids[axis]), index)
    new = _new_positions(site, data.ids[axis], positions.ravel())
    shape = (len(new),) if index.ndim == 1 else index.shape
    constant = relax.const(new.reshape(shape).astype(index.dtype), str(index.dtype))
    return relax.op.take(site.args[0], constant, axis=axis, mode=str(site.attrs.mode))


@rule("relax.take", rebuild=_rebuild_take)
def _take(flow: Flow) -> Axes:
    data, indices = flow.operand(0), flow.operand(1)
    if flow.attrs.axis is None and len(data) > 1:
        raise NotCovered(f"{flow.name} flattens its operand")
    axis = int(flow.attrs.axis or 0) % len(data)
    ids, zero = data.pairs()[axis]
    index = constant_value(flow.call.args[1])
    middle: list[tuple[np.ndarray, np.ndarray]]
    if index is None:
        flow.freeze(ids, f"{flow.name} looks positions up by computed indices")
        middle = [(index_ids, np.zeros(len(index_ids), bool)) for index_ids in indices.ids]
    else:
        if (index >= len(ids)).any() or (index < -len(ids)).any():
            raise NotCovered(f"an index of {flow.name} is out of range")
        for index_ids in indices.ids:
            flow.freeze(index_ids)
        if index.ndim == 1:
            middle = [(ids[index], zero[index])]
        else:
            flow.freeze(ids[index], f"{flow.name} takes single positions of it")
            middle = [flow.fixed(dim) for dim in index.shape]
    return from_pairs([*data.pairs()[:axis], *middle, *data.pairs()[axis + 1 :]])


@rule("relax.flip")
def _flip(flow: Flow) -> Axes:
    data = flow.operand(0)
    axis = int(flow.attrs.axis) % len(data)
    return data.with_axis(axis, data.ids[axis][::-1], data.zero[axis][::-1])


@rule("relax.repeat")
def _repeat(flow: Flow) -> Axes:
    data = flow.operand(0)
    if flow.attrs.axis is None:
        raise NotCovered(f"{flow.name} flattens its operand")
    axis, count = int(flow.attrs.axis) % len(data), int(flow.attrs.repeats)
    return data.with_axis(axis, np.repeat(data.ids[axis], count), np.repeat(data.zero[axis], count))


@rule("relax.tile")
def _tile(flow: Flow) -> Axes:
    data = flow.operand(0)
    rank = len(flow.out_shape)
    counts = ints(flow.attrs.repeats)
    counts = [1] * (rank - len(counts)) + counts
    pairs = [flow.live(1) for _ in range(rank - len(data))] + data.pairs()
    return from_pairs([(np.tile(ids, count), np.tile(zero, count)) for (ids, zero), count in zip(pairs, counts)])


def _rebuild_broadcast(site: Site) -> relax.Expr:
    return relax.op.broadcast_to(site.args[0], site.shape(site.axes()))


@rule("relax.broadcast_to", rebuild=_rebuild_broadcast)
def _broadcast_to(flow: Flow) -> Axes:
    data = flow.operand(0)
    shape = flow.out_shape
    pairs = [flow.live(1) for _ in range(len(shape) - len(data))] + data.pairs()
    return from_pairs([pair if len(pair[0]) == dim else flow.live(dim) for pair, dim in zip(pairs, shape)])


def _rebuild_pad(site: Site) -> relax.Expr:
    data, result = site.operand(0), site.axes()
    widths = ints(site.attrs.pad_width)
    new = []
    for axis, ids in enumerate(result.ids):
        before, size = widths[2 * axis], len(data.ids[axis])
        new += [len(site.kept(ids[:before])), len(site.kept(ids[before + size :]))]
    return site.with_attrs(pad_width=new)


@rule("relax.nn.pad", rebuild=_rebuild_pad)
def _pad(flow: Flow) -> Axes:
    data = flow.operand(0)
    widths = ints(flow.attrs.pad_width)
    if any(width < 0 for width in widths):
        raise NotCovered(f"{flow.name} crops")
    is_constant = str(flow.attrs.pad_mode) == "constant"
    is_zero = is_constant and float(flow.attrs.pad_value) == 0
    pairs = []
    for axis, (ids, zero) in enumerate(data.pairs()):
        before, after = widths[2 * axis : 2 * axis + 2]
        if not before and not after:
            pairs.append((ids, zero))
        elif is_constant and not flow.frozen(ids):
            # The padding is made of positions of its own: it may shrink too.
            head, tail = flow.live(before)[0], flow.live(after)[0]
            flags = [np.full(before, is_zero), zero, np.full(after, is_zero)]
            pairs.append((np.concatenate([head, ids, tail]), np.concatenate(flags)))
        else:
            flow.freeze(ids, f"{flow.name} pads it")
            pairs.append(flow.fixed(len(ids) + before + after))
    return from_pairs(pairs)
