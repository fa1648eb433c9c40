"""Plans of the arena: nothing alive at once overlaps, and the size meets its lower bound where one can tell."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.targets.aot.plan import ALIGNMENT, Buffer, lower_bound, plan


@st.composite
def _buffers(draw: st.DrawFn) -> dict[str, Buffer]:
    found = {}
    for index in range(draw(st.integers(0, 14))):
        first = draw(st.integers(-1, 12))
        found[f"b{index}"] = Buffer(draw(st.integers(0, 5000)), first, first + draw(st.integers(0, 5)))
    return found


def _most_alive(buffers: dict[str, Buffer]) -> int:
    """The lower bound, written anew: bytes alive at each step."""
    sizes = {name: max(1, -(-b.size // ALIGNMENT)) * ALIGNMENT for name, b in buffers.items()}
    return max((sum(sizes[n] for n, b in buffers.items() if b.first <= t <= b.last) for t in range(-1, 20)), default=0)


@settings(max_examples=150, deadline=None)
@given(_buffers())
def test_nothing_alive_at_once_overlaps(buffers: dict[str, Buffer]) -> None:
    made = plan(buffers)
    aligned = {name: Buffer(-(-max(b.size, 1) // 8) * 8, b.first, b.last) for name, b in buffers.items()}
    assert made.lower_bound == lower_bound(aligned)
    assert made.lower_bound == _most_alive(buffers) <= made.size
    for name, b in buffers.items():
        assert made.offsets[name] % ALIGNMENT == 0
        assert made.offsets[name] + b.size <= made.size
    names = sorted(buffers)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            a, b = buffers[one], buffers[other]
            if a.first <= b.last and b.first <= a.last:
                x, y = made.offsets[one], made.offsets[other]
                assert x + a.size <= y or y + b.size <= x, (one, other)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    sizes = [1000, 4000, 3000, 500, 2000, 16]
    made = plan({f"t{i}": Buffer(size, i, i + 1) for i, size in enumerate(sizes)})
    assert made.size == made.lower_bound == 7000


def test_a_residual_network_meets_the_bound() -> None:
    buffers = {}
    for block in range(9):
        for k in range(3):
            buffers[f"{block}.{k}"] = Buffer(16384 // (1 + block // 3), 3 * block + k, 3 * block + k + (3 if k == 2 else 1))
    made = plan(buffers)
    assert made.size <= 1.05 * made.lower_bound


def test_the_search_beats_every_single_order() -> None:
    # Largest first leaves a hole here that only another order fills.
    buffers = {
        "a": Buffer(800, 0, 2),
        "b": Buffer(600, 1, 3),
        "c": Buffer(500, 3, 5),
        "d": Buffer(400, 2, 4),
        "e": Buffer(900, 5, 6),
        "f": Buffer(300, 4, 6),
    }
    assert plan(buffers).size == plan(buffers).lower_bound


def test_the_same_buffers_give_the_same_plan() -> None:
    buffers = {f"t{i}": Buffer(100 * (i * 7 % 5 + 1), i, i + 1 + i % 3) for i in range(20)}
    assert plan(buffers) == plan(dict(buffers))


@pytest.mark.parametrize("buffers", [{}, {"only": Buffer(0, 0, 0)}])
def test_next_to_nothing(buffers: dict[str, Buffer]) -> None:
    assert plan(buffers).size == len(buffers) * ALIGNMENT
