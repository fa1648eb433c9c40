"""The schedule of `kernels.winograd`: rows of tiles at a time, so that what is transformed stays in the second-level cache.

For a band of rows of tiles: its padded input, the transform of all its tiles, 36 matrix products tiled for vector registers,
and for one vector of channels of a tile after the other the way back with what follows the convolution.

What is decided, by name:

| decision | what |
|---|---|
| `tile_rows` | rows of tiles in a band |
| `channels`, `positions` | the tile of a product: output channels, and tiles of the band |
| `unroll` | how many input channels are unrolled |
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from ..kernels.decisions import Choice, Decisions, Workload
from .kernels.intrinsics import DOT_ANNOTATION, DOTS, LANES_ANNOTATION, Dot
from .kernels.winograd import KERNEL, WINOGRAD_ANNOTATION
from .layer import VECTOR, NotScheduledError, dtypes_of, extents, is_high, stays
from .templates import split_high, unroll_and_vectorize, vectorize_elementwise

_PARALLEL_WORK = 1_000_000
"""Multiply-accumulates below which starting threads costs more than it brings."""
_LEAST_TILES = 7
"""Of a band: weights are read once for each."""
_WIDE_REGISTERS, _REGISTERS = 31, 16
_ALIGN, _OFFSET = 1024, 32
"""Elements. Planes of a whole number of pages would all fall into the same sets of a cache."""


@dataclass(frozen=True)
class _Sizes:
    """Of a function.

    Attributes:
        places: Inputs of a tile along one axis; it has two outputs less.
        images: N.
        down: Tiles.
        across: Tiles.
        inputs: Channels.
        outputs: Channels.
        lanes: 32-bit numbers of a register.
        dot: The product of integers; None for floats.
    """

    places: int
    images: int
    down: int
    across: int
    inputs: int
    outputs: int
    lanes: int
    dot: Dot | None

    @property
    def tile(self) -> int:
        return self.places + 1 - KERNEL

    @property
    def steps(self) -> int:
        """Of a sum."""
        return self.inputs if self.dot is None else self.inputs // self.dot.group

    @property
    def work(self) -> int:
        return self.places**2 * self.images * self.down * self.across * self.inputs * self.outputs


def is_winograd(schedule: Schedule, blocks: list[Any]) -> bool:
    """Whether these blocks of a function are those of `kernels.winograd`."""
    return any(WINOGRAD_ANNOTATION in schedule.get(block).annotations for block in blocks)


def winograd_work(schedule: Schedule) -> int:
    """Multiply-accumulates of its products."""
    return _sizes(schedule, _products(schedule)).work


def winograd_choice(mod: tvm.IRModule) -> Choice:
    """What may be decided for a function, `main` of a module."""
    schedule = Schedule(mod)
    sizes = _sizes(schedule, _products(schedule))
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    shape = {
        "reads": [int(dim) for dim in mod["main"].params[0].ty.shape],
        "outputs": extents(schedule, blocks[-1]),
        "tiles": [sizes.images, sizes.down, sizes.across],
        "sums": [sizes.steps],
        "product": "" if sizes.dot is None else sizes.dot.broadcast,
        "lanes": sizes.lanes,
        "dtypes": dtypes_of(mod),
    }
    return Choice(Workload("x86", "winograd", shape), _default(sizes), lambda: _points(sizes))


def schedule_winograd(schedule: Schedule, decisions: Decisions, parallel: bool = True) -> None:
    """Apply the decisions to the function `main` of `schedule`, in place.

    Raises:
        NotScheduledError: It has not the blocks of `kernels.winograd`.
    """
    d: dict[str, Any] = dict(decisions)
    products = _products(schedule)
    sizes = _sizes(schedule, products)
    (tiles,) = schedule.get_producers(products)
    (half,) = schedule.get_producers(tiles)
    (padded,) = schedule.get_producers(half)
    (half_back,) = schedule.get_consumers(products)
    (outputs,) = schedule.get_consumers(half_back)
    around = _inline_around(schedule, padded, outputs)
    band, halves = _tile_tail(schedule, d, sizes, half_back, around)
    if parallel and sizes.work >= _PARALLEL_WORK:
        schedule.parallel(band)
    lanes_of_sums = _tile_products(schedule, d, sizes, products, band)
    depth = len(schedule.get_loops(half_back)) - len(extents(schedule, half_back)) - 3
    schedule.compute_at(tiles, band, preserve_unit_loops=True)
    i, j, *places, channel = schedule.get_loops(tiles)[depth:]
    lanes = sizes.lanes if sizes.dot is None else sizes.lanes * sizes.dot.group
    outer, lane = schedule.split(channel, [None, _vector(sizes.inputs, lanes)])
    schedule.reorder(*places, outer, i, j, lane)
    for loop in (i, j):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.storage_align(tiles, 0, 1, _ALIGN, _OFFSET)
    schedule.compute_at(half, outer, preserve_unit_loops=True)
    unroll_and_vectorize(schedule, schedule.get_loops(half)[depth + len(places) + 1 :])
    schedule.compute_at(padded, band, preserve_unit_loops=True)
    vectorize_elementwise(schedule, padded, False)
    # Once nothing is to be computed at them any more.
    for loop, intrinsic in halves if sizes.dot is None else (*halves, (lanes_of_sums, sizes.dot.broadcast)):
        schedule.tensorize(loop, intrinsic)
    for block in around.behind:
        vectorize_elementwise(schedule, block, parallel)


def _products(schedule: Schedule) -> Any:
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    found = [block for block in blocks if WINOGRAD_ANNOTATION in schedule.get(block).annotations]
    if len(found) != 1:
        raise NotScheduledError(f"the function has {len(found)} convolutions, not one")
    return found[0]


def _sizes(schedule: Schedule, products: Any) -> _Sizes:
    places, _, images, down, across, outputs, inputs, *group = extents(schedule, products)
    annotations = schedule.get(products).annotations
    intrinsic = str(annotations.get(DOT_ANNOTATION, ""))
    dot = next((dot for dot in DOTS if intrinsic == dot.broadcast), None)
    lanes = int(annotations.get(LANES_ANNOTATION, VECTOR)) if dot is None else dot.lanes
    return _Sizes(places, images, down, across, inputs * math.prod(group), outputs, lanes, dot)


@dataclass(frozen=True)
class _Around:
    """What follows the way back: the block in its tiles, stages of it that stay blocks, and those of another shape behind."""

    tail: Any
    stages: list[Any]
    behind: list[Any]


def _inline_around(schedule: Schedule, padded: Any, outputs: Any) -> _Around:
    """Inline what is element-wise."""
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    names = [schedule.get(block).name_hint for block in blocks]
    first, last = names.index(schedule.get(padded).name_hint), names.index(schedule.get(outputs).name_hint)
    shape = extents(schedule, outputs)
    tail = [block for block in blocks[last:] if extents(schedule, block) == shape][-1]
    ends = [block for block in (tail, blocks[-1]) if block != tail]
    kept, stages = [tail, *ends], []
    # Not the sums themselves, which are shifted before anything widens them; those only where an intrinsic takes their place.
    sums = first if any(is_high(schedule, block) for block in blocks) else first + 1
    for index, block in enumerate([*blocks[:first], *blocks[last:]]):
        if block in kept:
            continue
        if index > sums and stays(schedule, block) and extents(schedule, block) == shape:
            stages.append(block)
        else:
            schedule.compute_inline(block)
    return _Around(tail, stages, ends)


def _tile_tail(
    schedule: Schedule, d: dict[str, Any], sizes: _Sizes, half_back: Any, around: _Around
) -> tuple[Any, list[tuple[Any, str]]]:
    """The loop over bands, and inside it the way back, one vector of a tile at a time.

    Returns:
        It; the loops that an intrinsic takes the place of, with its name.
    """
    image, row, column, channel = schedule.get_loops(around.tail)
    band, tile, row = schedule.split(row, [None, d["tile_rows"], sizes.tile])
    next_tile, column = schedule.split(column, [None, sizes.tile])
    vector, lane = schedule.split(channel, [None, _vector(sizes.outputs, sizes.lanes)])
    schedule.reorder(image, band, tile, next_tile, vector, row, column, lane)
    for loop in (row, column):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    bands = schedule.fuse(image, band)
    halves = []
    for block in (*reversed(around.stages), half_back):
        schedule.compute_at(block, vector, preserve_unit_loops=True)
        loops = schedule.get_loops(block)[4:]
        if is_high(schedule, block):
            halves.append(split_high(schedule, block, loops))
        else:
            unroll_and_vectorize(schedule, loops)
    return bands, halves


def _tile_products(schedule: Schedule, d: dict[str, Any], sizes: _Sizes, products: Any, band: Any) -> Any:
    """The matrix products, their sums in registers until they are complete; the loop over lanes."""
    complete = schedule.cache_write(products, 0, "global")
    schedule.compute_at(complete, band, preserve_unit_loops=True)
    i, j, image, tile, next_tile, channel = schedule.get_loops(complete)[1:]
    outer, position = schedule.split(schedule.fuse(tile, next_tile), [None, d["positions"]])
    block, channel = schedule.split(channel, [None, d["channels"]])
    vector, lane = schedule.split(channel, [None, _vector(d["channels"], sizes.lanes)])
    schedule.reorder(i, j, image, block, outer, position, vector, lane)
    for loop in (position, vector):
        schedule.unroll(loop)
    schedule.vectorize(lane)
    schedule.storage_align(complete, 0, 1, _ALIGN, _OFFSET)
    schedule.compute_at(products, outer, preserve_unit_loops=True)
    loops = list(schedule.get_loops(products)[6:])
    group = [loops.pop()] if sizes.dot is not None else []
    *places, channel, depth = loops
    vector, lane = schedule.split(channel, [None, _vector(d["channels"], sizes.lanes)])
    depth, repeat = schedule.split(depth, [None, d["unroll"]])
    schedule.reorder(depth, repeat, *places, vector, lane, *group)
    for loop in (repeat, *places, vector):
        schedule.unroll(loop)
    if sizes.dot is None:
        schedule.vectorize(lane)
    initial = schedule.decompose_reduction(products, depth)
    unroll_and_vectorize(schedule, schedule.get_loops(initial)[6:])
    return lane


def _vector(channels: int, lanes: int) -> int:
    """Lanes of vectors that divide channels, a multiple of eight."""
    return lanes if channels % lanes == 0 else VECTOR


def _default(sizes: _Sizes) -> Decisions:
    rows = next(count for count in _divisors(sizes.down) if count * sizes.across >= _LEAST_TILES or count == sizes.down)
    budget = _WIDE_REGISTERS if sizes.lanes > VECTOR else _REGISTERS
    if sizes.lanes > VECTOR and sizes.dot is None:
        budget -= 1  # of floats LLVM spills sums where none of AVX-512's registers is left, which doubles the time
    tiles = []
    for channels, positions in itertools.product(_channels(sizes), _positions(sizes, rows)):
        vectors = -(-channels // sizes.lanes)
        sums = vectors * positions
        # What is loaded for each product; fewer than eight sums leave the multipliers waiting for each other.
        cost = (vectors + positions) / sums + 0.08 * max(0, 8 - sums)
        # Of equal tiles, floats in AVX2's registers are better off with more positions: fewer rows of weights at a time.
        few = sizes.lanes == VECTOR and sizes.dot is None
        tiles.append((sums + vectors + 1 > budget, cost, channels if few else -channels, channels, positions))
    *_, channels, positions = min(tiles)
    return {"tile_rows": rows, "channels": channels, "positions": positions, "unroll": 2 if sizes.steps % 2 == 0 else 1}


def _points(sizes: _Sizes) -> Iterator[Decisions]:
    budget = _WIDE_REGISTERS if sizes.lanes > VECTOR else _REGISTERS + 1
    for rows in _divisors(sizes.down):
        for channels, positions in itertools.product(_channels(sizes), _positions(sizes, rows)):
            if -(-channels // sizes.lanes) * positions <= budget:
                for unroll in (1, 2, 4):
                    yield {"tile_rows": rows, "channels": channels, "positions": positions, "unroll": unroll}


def _channels(sizes: _Sizes) -> list[int]:
    """Of a tile: whole vectors that divide the output channels."""
    vector = _vector(sizes.outputs, sizes.lanes)
    return [count * vector for count in range(1, 5) if sizes.outputs % (count * vector) == 0]


def _positions(sizes: _Sizes, rows: int) -> list[int]:
    """Of a tile: a divisor of a row of tiles, or whole rows."""
    whole = [count * sizes.across for count in _divisors(rows) if count > 1]
    return [count for count in (*_divisors(sizes.across), *whole) if count <= _WIDE_REGISTERS]


def _divisors(extent: int) -> list[int]:
    return [count for count in range(1, extent + 1) if extent % count == 0]
