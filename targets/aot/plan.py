"""Placing buffers of known lifetimes in one arena.

Minimizing the arena is offline dynamic storage allocation, which is NP-hard (Garey and Johnson, 1979, problem SR2), but
networks are small: first fit under several good orders, then under orders improved by local search, usually meets the lower
bound (the most bytes alive at once), and then it is proven optimal. Where it does not, a branch and bound looks for a better
plan, or proves that there is none.

Some plan is optimal and placed bottom up: every buffer, in the order of offsets, lies on what is below it. So the search
places buffers in that order on a skyline, the height in use at each step; what is still to be placed at a step must lie above
the skyline there, which bounds what can become of a partial plan.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 8
_SEARCH_WORK = 500_000
"""Pairs of buffers that local search compares at most."""
_MOST_NODES = 10_000
"""Partial plans that branch and bound looks at."""


@dataclass(frozen=True)
class Buffer:
    """A piece of memory.

    Attributes:
        size: Bytes.
        first: The step that writes it first.
        last: The step that reads it last.
        shrinks: A step and a size: from that step on only so many bytes at the start are needed.
    """

    size: int
    first: int
    last: int
    shrinks: tuple[int, int] | None = None

    def at(self, step: int) -> int:
        """The bytes in use from `step`, a step of its life, on."""
        return self.shrinks[1] if self.shrinks is not None and step >= self.shrinks[0] else self.size


@dataclass(frozen=True)
class Plan:
    """Where every buffer lies.

    Attributes:
        offsets: Offset of each buffer, a multiple of `ALIGNMENT`.
        size: Bytes of the arena.
        lower_bound: The most bytes alive at once: no plan can be smaller.
        optimal: Whether it is proven that no plan is smaller.
    """

    offsets: dict[str, int]
    size: int
    lower_bound: int
    optimal: bool = False


def plan(buffers: Mapping[str, Buffer], seed: int = 0) -> Plan:
    """Place `buffers` so that no two that are alive at once overlap; the same input always gives the same plan."""
    sized = {name: _aligned(buffer) for name, buffer in buffers.items()}
    bound = lower_bound(sized)
    found = _Search(sized, bound, seed)
    found.try_orders()
    found.improve()
    optimal = found.size == bound or found.prove()
    return Plan(dict(zip(sized, found.offsets)), found.size, bound, optimal)


def lower_bound(buffers: Mapping[str, Buffer]) -> int:
    """The most bytes alive at once."""
    return max(usage(buffers).values(), default=0)


def usage(buffers: Mapping[str, Buffer]) -> dict[int, int]:
    """Bytes alive at each step at which a buffer comes to life."""
    steps = sorted({buffer.first for buffer in buffers.values()})
    return {step: sum(b.at(step) for b in buffers.values() if b.first <= step <= b.last) for step in steps}


class _Search:
    """The best plan so far; buffers are known by their numbers."""

    def __init__(self, buffers: Mapping[str, Buffer], bound: int, seed: int) -> None:
        self._names = list(buffers)
        self._buffers = list(buffers.values())
        self._bound, self._seed = bound, seed
        self._neighbours = [self._conflicts(index) for index in range(len(self._buffers))]
        self._order: list[int] = []
        self.size, self.offsets = 0, [0] * len(self._buffers)

    def _conflicts(self, index: int) -> list[tuple[int, int, int]]:
        """The buffers alive together with this one, and the bytes that either needs then."""
        own, found = self._buffers[index], []
        for number, other in enumerate(self._buffers):
            start = max(own.first, other.first)
            if number != index and start <= min(own.last, other.last):
                found.append((number, own.at(start), other.at(start)))
        return found

    def try_orders(self) -> None:
        """First fit under orders that are often good."""
        b, names = self._buffers, self._names
        keys = [
            lambda n: (-b[n].size, b[n].first, names[n]),
            lambda n: (-b[n].size * (b[n].last - b[n].first + 1), names[n]),
            lambda n: (-(b[n].last - b[n].first), -b[n].size, names[n]),
            lambda n: (b[n].first, -b[n].size, names[n]),
        ]
        for number, key in enumerate(keys):
            order = sorted(range(len(b)), key=key)
            size, offsets = self._first_fit(order)
            if number == 0 or size < self.size:
                self.size, self.offsets, self._order = size, offsets, order

    def improve(self) -> None:
        """Local search over orders."""
        rng, order = random.Random(self._seed), list(self._order)
        pairs = sum(map(len, self._neighbours))
        for _ in range(_SEARCH_WORK // pairs if len(order) > 2 and pairs else 0):
            if self.size == self._bound:
                return
            trial = list(order)
            i, j = rng.randrange(len(trial)), rng.randrange(len(trial))
            trial.insert(j, trial.pop(i))
            size, offsets = self._first_fit(trial)
            if size <= self.size:
                order = trial
                if size < self.size:
                    self.size, self.offsets = size, offsets

    def _first_fit(self, order: Sequence[int]) -> tuple[int, list[int]]:
        offsets = [-1] * len(order)
        top = 0
        for index in order:
            placed = sorted(
                (offsets[other], offsets[other] + theirs, own)
                for other, own, theirs in self._neighbours[index]
                if offsets[other] >= 0
            )
            offset, moved = 0, True
            while moved:
                moved = False
                for start, end, own in placed:
                    if offset < end and start < offset + own:
                        offset, moved = end, True
            offsets[index] = offset
            top = max(top, offset + self._buffers[index].size)
        return top, offsets

    def prove(self) -> bool:
        """Branch and bound; whether it came to its end, so that the plan is optimal."""
        steps = sorted({buffer.first for buffer in self._buffers})
        # Of each buffer the steps of its life, as positions in `steps`, with the bytes in use.
        lives = [[(at, b.at(step)) for at, step in enumerate(steps) if b.first <= step <= b.last] for b in self._buffers]
        rest = [0] * len(steps)
        for life in lives:
            for at, size in life:
                rest[at] += size
        skyline = [0] * len(steps)
        placed = [-1] * len(self._buffers)
        nodes = 0

        def descend(last: tuple[int, int], left: int) -> bool:
            """Place the buffers that are left above `last`, an offset and a number; False when there are too many nodes."""
            nonlocal nodes
            if left == 0:
                self.size = max(offset + b.size for offset, b in zip(placed, self._buffers))
                self.offsets = list(placed)
                return True
            nodes += 1
            if nodes > _MOST_NODES:
                return False
            choices, tried = [], set()
            for index, life in enumerate(lives):
                if placed[index] >= 0:
                    continue
                offset = max(skyline[at] for at, _ in life)
                if (offset, index) < last or (kind := (offset, *life)) in tried:
                    continue
                tried.add(kind)
                choices.append((offset, -self._buffers[index].size, index))
            for offset, _, index in sorted(choices):
                life = lives[index]
                before = [skyline[at] for at, _ in life]
                for at, size in life:
                    skyline[at], rest[at] = offset + size, rest[at] - size
                placed[index] = offset
                promising = max(map(sum, zip(skyline, rest))) < self.size
                complete = not promising or descend((offset, index), left - 1)
                placed[index] = -1
                for (at, size), height in zip(life, before):
                    skyline[at], rest[at] = height, rest[at] + size
                if not complete or self.size == self._bound:
                    return complete
            return True

        return descend((0, -1), len(self._buffers))


def _aligned(buffer: Buffer) -> Buffer:
    shrinks = None if buffer.shrinks is None else (buffer.shrinks[0], align(buffer.shrinks[1]))
    return Buffer(align(buffer.size), buffer.first, buffer.last, shrinks)


def align(size: int) -> int:
    """The next multiple of `ALIGNMENT`, at least one."""
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
