"""Reshape: flatten, split of an axis, and their mixtures.

Both shapes are cut into common factors, as in (C, H*W) to (G, C/G, H, W). Each old axis is a grid of factors and lets
go along one of them only, its carrier: removing position k of the carrier removes all positions of the axis that lie on
it. A new axis is a grid too and takes over the carrier it contains. Where several factors could carry, one that needs
no other axis to be frozen wins, then the larger, then the inner one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._tvm import relax
from .axes import Axes, from_pairs
from .registry import Flow, NotCovered, Site, rule


@dataclass(frozen=True)
class Factor:
    """A common factor of two shapes: its size, the old axis and the new axis that it is part of."""

    size: int
    old: int
    new: int


def common_factors(old: Sequence[int], new: Sequence[int]) -> list[Factor] | None:
    """The coarsest factors of which both shapes are made, outermost first, without ones; None where there are none."""
    factors: list[Factor] = []
    left = [[size, axis] for axis, size in enumerate(old) if size != 1]
    right = [[size, axis] for axis, size in enumerate(new) if size != 1]
    # From the innermost axis outwards: the smaller remainder must divide the larger one.
    while left and right:
        (a, old_axis), (b, new_axis) = left[-1], right[-1]
        size = min(a, b)
        if size == 0 or max(a, b) % size:
            return None
        factors.append(Factor(size, old_axis, new_axis))
        for stack, rest in ((left, a // size), (right, b // size)):
            if rest == 1:
                stack.pop()
            else:
                stack[-1][0] = rest
    return None if left or right else factors[::-1]


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[slice, slice]]:
    """Runs of axes with equal products, as short as possible."""
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        start_i, start_j = i, j
        a = b = 1
        while True:
            if a < b or (a == b and i < len(old) and (j == start_j or old[i] == 1)):
                a, i = a * old[i], i + 1
            elif b < a or (j < len(new) and (j == start_j or new[j] == 1)):
                b, j = b * new[j], j + 1
            if a == b and (i > start_i or i == len(old)) and (j > start_j or j == len(new)):
                break
        blocks.append((slice(start_i, i), slice(start_j, j)))
    return blocks


def _carriers(flow: Flow, data: Axes, factors: list[Factor], rank: int) -> list[Factor]:
    """The factors along which positions may go: at most one an old axis and one a new axis."""
    live = [factor for factor in factors if not flow.frozen(data.ids[factor.old])]
    shared = {axis: {factor.old for factor in factors if factor.new == axis} for axis in range(rank)}

    def preference(indexed: tuple[int, Factor]) -> tuple[int, int, int, int]:
        index, factor = indexed
        parts = [other for other in factors if other.old == factor.old]
        wanted = 0
        if factor.size in flow.preferred_splits:
            # (3, heads, width) and (heads, width): where sizes are equal, the heads are the last but one.
            wanted = 2 if parts.index(factor) == len(parts) - 2 else 1
        return (len(shared[factor.new]) == 1, wanted, factor.size, index)

    chosen: list[Factor] = []
    for _, factor in sorted(enumerate(live), key=preference, reverse=True):
        if all(factor.old != other.old and factor.new != other.new for other in chosen):
            chosen.append(factor)
    return chosen


def _rebuild(site: Site) -> relax.Expr:
    return relax.op.reshape(site.args[0], site.shape(site.axes()))


@rule("relax.reshape", rebuild=_rebuild)
def _reshape(flow: Flow) -> Axes:
    return reshape(flow, flow.operand(0), flow.out_shape)


@rule("relax.flatten", "relax.nn.batch_flatten")
def _flatten(flow: Flow) -> Axes:
    return reshape(flow, flow.operand(0), flow.out_shape)


def reshape(flow: Flow, data: Axes, shape: Sequence[int]) -> Axes:
    """The atoms of `data` in another shape."""
    if 0 in data.shape:
        raise NotCovered(f"{flow.name} reshapes an empty tensor")
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for old, new in _blocks(data.shape, shape):
        pairs += _reshape_block(flow, from_pairs(data.pairs()[old]), shape[new])
    return from_pairs(pairs)


def _reshape_block(flow: Flow, data: Axes, shape: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    factors = common_factors(data.shape, shape)
    if factors is None:
        reason = f"{flow.name} reshapes {data.shape} to {tuple(shape)}, which have no common factors"
        for ids in data.ids:
            flow.freeze(ids, reason)
        return [flow.fixed(dim) for dim in shape]
    if [len(ids) for ids in data.ids if len(ids) != 1] == [dim for dim in shape if dim != 1]:
        kept = iter(pair for pair in data.pairs() if len(pair[0]) != 1)
        return [next(kept) if dim != 1 else flow.live(1) for dim in shape]
    carriers = _carriers(flow, data, factors, len(shape))
    carried: dict[Factor, tuple[np.ndarray, np.ndarray]] = {}
    for axis, (ids, zero) in enumerate(data.pairs()):
        parts = [factor for factor in factors if factor.old == axis]
        carrier = next((factor for factor in carriers if factor.old == axis), None)
        if carrier is None:
            if parts and not flow.frozen(ids):
                flow.freeze(ids, f"{flow.name} merges it with another axis")
            continue
        rows = _rows(ids, parts, carrier)
        flow.tie(rows[:, :1], rows)
        carried[carrier] = rows[:, 0], np.all(_rows(zero, parts, carrier), axis=1)
    pairs = []
    for axis, dim in enumerate(shape):
        parts = [factor for factor in factors if factor.new == axis]
        carrier = next((factor for factor in carriers if factor.new == axis), None)
        if carrier is None:
            pairs.append(flow.fixed(dim) if parts else flow.live(dim))
            continue
        ids, zero = carried[carrier]
        pairs.append((_spread(ids, parts, carrier), _spread(zero, parts, carrier)))
    return pairs


def _rows(values: np.ndarray, parts: list[Factor], carrier: Factor) -> np.ndarray:
    """The values of an axis as (positions of the carrier, all others)."""
    grid = values.reshape([factor.size for factor in parts])
    return np.moveaxis(grid, parts.index(carrier), 0).reshape(carrier.size, -1)


def _spread(values: np.ndarray, parts: list[Factor], carrier: Factor) -> np.ndarray:
    """The values of a carrier over the grid of an axis, flat."""
    shape = [factor.size if factor == carrier else 1 for factor in parts]
    return np.broadcast_to(values.reshape(shape), [factor.size for factor in parts]).ravel()
