"""Placing buffers of known lifetimes in one arena.

Minimizing the arena is offline dynamic storage allocation, which is NP-hard, but networks are small: first fit under several
good orders, then under orders improved by local search, usually meets the lower bound (the most bytes alive at once), and
then it is proven optimal.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 8
_SEARCH_ROUNDS = 3000


@dataclass(frozen=True)
class Buffer:
    """A piece of memory.

    Attributes:
        size: Bytes.
        first: The step that writes it first.
        last: The step that reads it last.
    """

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """Where every buffer lies.

    Attributes:
        offsets: Offset of each buffer, a multiple of `ALIGNMENT`.
        size: Bytes of the arena.
        lower_bound: The most bytes alive at once: no plan can be smaller.
    """

    offsets: dict[str, int]
    size: int
    lower_bound: int


def plan(buffers: Mapping[str, Buffer], seed: int = 0) -> Plan:
    """Place `buffers` so that no two that are alive at once overlap; the same input always gives the same plan."""
    sized = {name: Buffer(_align(b.size), b.first, b.last) for name, b in buffers.items()}
    bound = lower_bound(sized)
    orders = [
        sorted(sized, key=lambda n: (-sized[n].size, sized[n].first, n)),
        sorted(sized, key=lambda n: (-sized[n].size * (sized[n].last - sized[n].first + 1), n)),
        sorted(sized, key=lambda n: (-(sized[n].last - sized[n].first), -sized[n].size, n)),
        sorted(sized, key=lambda n: (sized[n].first, -sized[n].size, n)),
    ]
    best_size, best_offsets, best_order = None, {}, orders[0]
    for order in orders:
        size, offsets = _first_fit(sized, order)
        if best_size is None or size < best_size:
            best_size, best_offsets, best_order = size, offsets, order
    assert best_size is not None or not sized
    rng = random.Random(seed)
    order = list(best_order)
    for _ in range(_SEARCH_ROUNDS if len(sized) > 2 else 0):
        if best_size == bound:
            break
        trial = list(order)
        i, j = rng.randrange(len(trial)), rng.randrange(len(trial))
        trial.insert(j, trial.pop(i))
        size, offsets = _first_fit(sized, trial)
        if size <= (best_size or 0):
            order = trial
            if size < (best_size or 0):
                best_size, best_offsets = size, offsets
    return Plan(best_offsets, best_size or 0, bound)


def lower_bound(buffers: Mapping[str, Buffer]) -> int:
    """The most bytes alive at once."""
    steps = {b.first for b in buffers.values()}
    return max((sum(b.size for b in buffers.values() if b.first <= step <= b.last) for step in steps), default=0)


def _first_fit(buffers: Mapping[str, Buffer], order: Sequence[str]) -> tuple[int, dict[str, int]]:
    placed: list[tuple[int, Buffer]] = []
    offsets: dict[str, int] = {}
    for name in order:
        buffer = buffers[name]
        offset = 0
        for start, other in sorted(
            ((s, o) for s, o in placed if o.first <= buffer.last and buffer.first <= o.last), key=lambda entry: entry[0]
        ):
            if offset + buffer.size <= start:
                break
            offset = max(offset, start + other.size)
        offsets[name] = offset
        placed.append((offset, buffer))
    return max((start + b.size for start, b in placed), default=0), offsets


def _align(size: int) -> int:
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
