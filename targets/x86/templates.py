"""The schedule template of x86: one reduction tiled for vector registers.

Pattern: [padding] -> one reduction -> element-wise tail [-> what leaves channels out that only fill up a vector], the last
output axis contiguous (channels of an NHWC convolution, columns of a matrix product). That covers convolutions, depthwise
and grouped ones, dense layers, pools and means, float or integer.

Strategy: outer loops over tiles of some rows and positions times some contiguous channels; inside, the whole reduction
runs with the tile held in vector registers, one broadcast of the input against vectors of weights. The tail is applied to
the tile while it is in cache. Why not an im2col matrix product: for the small layers of edge models the copy costs as much
as the product.

What is decided, by name:

| decision | what |
|---|---|
| `channels`, `positions`, `rows` | the tile |
| `order` | the outermost loop: `rows` read all weights again and again, `channels` the input |
| `border` | the padded, widened or packed input is written `whole`, or for a `band` of rows at a time |
| `epilogue` | the tail follows each `tile`, or a `band` of rows |
| `taps` | the loops over rows and columns of the kernel are a `loop`, or `unrolled` around the channels, or inside (`inner`) |
| `unroll` | how many steps of the innermost reduction are unrolled |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm.s_tir import Schedule

from ..kernels.decisions import Decisions
from .kernels.intrinsics import HIGH_ANNOTATION
from .layer import VECTOR, Blocks, Layer, NotScheduledError, extent_of, extents, find_layer, is_high, is_reduction, stays

_PARALLEL_WORK = 1_000_000
"""Multiply-accumulates below which starting threads costs more than it brings."""
_PARALLEL_ELEMENTS = 1 << 15
"""The same of elements that are copied or computed one by one. What one thread writes alone the others read from its cache."""
_PARALLEL_WEIGHTS = 1 << 18
"""The same of bytes of weights: where there are more of them than work, reading them takes the time."""
_SHARES = 16
"""Pieces of work to have at least, so that threads come to an end together."""


def tile_reduction(schedule: Schedule, decisions: Decisions, parallel: bool = True) -> None:
    """Apply the template to the function `main` of `schedule`, in place.

    Args:
        schedule: A schedule of an unscheduled function.
        decisions: A point of the space of its layer.
        parallel: Whether large layers may use several threads.

    Raises:
        NotScheduledError: The function has no reduction or several, or its output does not follow the pattern.
    """
    layer, blocks = find_layer(schedule)
    threads = parallel and (
        layer.work >= _PARALLEL_WORK
        or layer.weight_bytes >= _PARALLEL_WEIGHTS
        or math.prod(layer.outputs) >= _PARALLEL_ELEMENTS
    )
    d: dict[str, Any] = dict(decisions)
    bands = d["epilogue"] == "band"
    outer, halves = _tile_tail(schedule, d, layer, blocks, bands)
    banded = blocks.before is not None and (layer.packs_rows or d["border"] == "band")
    fused = 0
    if threads:
        before = len(outer)
        outer = _share_out(schedule, outer, len(layer.rows) if banded else len(outer))
        fused = before - len(outer)
    schedule.compute_at(blocks.main, outer[-1], preserve_unit_loops=True)
    if banded:
        # For one band of rows, which then stays in the first-level cache.
        schedule.compute_at(blocks.before, outer[len(layer.rows) - 1 - fused], preserve_unit_loops=True)
    _tile_sum(schedule, d, layer, blocks, outer, bands)
    for loop, intrinsic in halves:  # once nothing is to be computed at them any more, nor read by them
        schedule.tensorize(loop, intrinsic)
    if blocks.before is not None:
        vectorize_elementwise(schedule, blocks.before, threads and not banded)
    if blocks.crop is not None:
        _plain_tail(schedule, blocks.crop, blocks.late, threads)


def _share_out(schedule: Schedule, loops: list[Any], most: int) -> list[Any]:
    """Give the outermost loops to the threads, as many of the first `most` together as make `_SHARES` pieces.

    Returns:
        The loops that there are then.
    """
    count = next((n for n in range(1, most) if math.prod(extent_of(schedule, x) for x in loops[:n]) >= _SHARES), max(most, 1))
    outermost = schedule.fuse(*loops[:count]) if count > 1 else loops[0]
    schedule.parallel(outermost)
    return [outermost, *loops[count:]]


def _plain_tail(schedule: Schedule, block: Any, stages: Sequence[Any], parallel: bool) -> None:
    """What leaves channels out, by itself, its stages in its innermost loop but one."""
    outer = vectorize_elementwise(schedule, block, parallel)
    for stage in reversed(stages):
        if outer:
            schedule.compute_at(stage, outer[-1], preserve_unit_loops=True)
            unroll_and_vectorize(schedule, schedule.get_loops(stage)[len(outer) :])


def _tile_tail(
    schedule: Schedule, d: dict[str, Any], layer: Layer, blocks: Blocks, bands: bool
) -> tuple[list[Any], list[tuple[Any, str]]]:
    """Phase 1: tile the tail; its stages follow in its tile.

    Returns:
        The loops outside the tile, or outside a band of rows; the loops that an intrinsic takes the place of, with its name.
    """
    loops = list(schedule.get_loops(blocks.tail))
    channel = loops.pop()
    column = loops.pop() if loops else None
    rows, inner = loops, []
    if rows:
        rest, row = schedule.split(rows[-1], [None, d["rows"]])
        rows = [*rows[:-1], rest]
        inner.append(row)
    if bands:
        assert column is not None
        outer = rows
        inner.append(column)
        outer_channel, inner_channel = schedule.split(channel, [None, d["channels"]])
        inner.append(outer_channel)
        at = outer_channel
    else:
        outer_channel, inner_channel = schedule.split(channel, [None, d["channels"]])
        outer = [*rows, outer_channel]
        if column is not None:
            outer_column, inner_column = schedule.split(column, [None, d["positions"]])
            if d["order"] == "channels":
                outer = [*rows[:-1], outer_channel, rows[-1]]
            outer.append(outer_column)
            inner.append(inner_column)
        schedule.reorder(*outer, *inner, inner_channel)
        for loop in inner:
            schedule.unroll(loop)
        at = outer[-1]
    _vectorize(schedule, inner_channel)
    depth = len(schedule.get_loops(blocks.tail)) if bands else 0
    halves = []
    for stage in reversed(blocks.stages):
        schedule.compute_at(stage, at, preserve_unit_loops=True)
        count = len(outer) + len(inner) if depth else len(outer)
        loops = schedule.get_loops(stage)[count:]
        if not is_high(schedule, stage):
            unroll_and_vectorize(schedule, loops)
            continue
        halves.append(split_high(schedule, stage, loops))
    return outer, halves


def split_high(schedule: Schedule, stage: Any, loops: Sequence[Any]) -> tuple[Any, str]:
    """Unroll the loops of a block `is_high` but for one register.

    Returns:
        The loop that an intrinsic takes the place of, with its name.
    """
    intrinsic = str(schedule.get(stage).annotations[HIGH_ANNOTATION])
    *around, last = loops
    outside, lane = schedule.split(last, [None, int(intrinsic.rpartition(".")[2])])
    for loop in (*around, outside):
        schedule.unroll(loop)
    return lane, intrinsic


def _tile_sum(schedule: Schedule, d: dict[str, Any], layer: Layer, blocks: Blocks, outer: list[Any], bands: bool) -> None:
    """Phase 2: the reduction around the tile, the tile unrolled into vectors or dot product instructions."""
    inner = list(schedule.get_loops(blocks.main)[len(outer) :])
    count = len(layer.outputs)
    tile, reduction = inner[:count], inner[count:]
    outside = len(outer)
    if bands:
        rows, column, channel = tile[:-2], tile[-2], tile[-1]
        outer_column, inner_column = schedule.split(column, [None, d["positions"]])
        outer_channel, inner_channel = schedule.split(channel, [None, d["channels"]])
        around = [outer_channel, outer_column] if d["order"] == "channels" else [outer_column, outer_channel]
        if not outer:
            around, rows = [*rows, *around], []
        schedule.reorder(*around, *rows, inner_column, inner_channel)
        tile = [*rows, inner_column, inner_channel]
        outside += len(around)
    group = []
    if layer.dot is not None and not layer.packs_rows:
        group = [reduction.pop()]
    if layer.blocked:
        tile[-1:] = schedule.split(tile[-1], [None, layer.vector])
    index = innermost_sum(layer)
    rest, repeat = schedule.split(reduction[index], [None, d["unroll"]])
    reduction[index] = rest
    taps = [loop for place, loop in enumerate(reduction) if place != index]
    # What taps of neighbouring positions read is the same: unrolled inside, it is loaded once.
    order = [rest, repeat, *taps] if d["taps"] == "inner" else [*reduction, repeat]
    schedule.reorder(*order, *tile, *group)
    schedule.unroll(repeat)
    if d["taps"] != "loop":
        for loop in taps:
            schedule.unroll(loop)
    for loop in tile[:-1]:
        schedule.unroll(loop)
    if layer.dot is None:
        _vectorize(schedule, tile[-1])
    initial = schedule.decompose_reduction(blocks.main, order[0])
    unroll_and_vectorize(schedule, schedule.get_loops(initial)[outside:])
    if layer.dot is not None:
        schedule.tensorize(tile[-1], layer.dot.packed if layer.packs_rows else layer.dot.broadcast)


def innermost_sum(layer: Layer) -> int:
    """The innermost reduction that repeats: of a depthwise convolution the columns of the kernel."""
    return max((i for i, extent in enumerate(layer.sums) if extent > 1), default=len(layer.sums) - 1)


def vectorize_elementwise(schedule: Schedule, block: Any, parallel: bool, lanes: int | None = None) -> list[Any]:
    """Vectorize an element-wise block along its last axis and give its outer axes to the threads.

    Args:
        schedule: The schedule.
        block: The block.
        parallel: Whether threads may share it.
        lanes: Elements of a vector; by default see `default_lanes`.

    Returns:
        The loops outside the vectors.
    """
    loops = list(schedule.get_loops(block))
    if not loops:
        return []
    work = math.prod(extents(schedule, block))
    # Vectors over several axes would make the condition of a padding differ from lane to lane.
    lanes = lanes or default_lanes(extent_of(schedule, loops[-1]))
    outer = loops[:-1]
    if lanes > 1:
        rest, inner = schedule.split(loops[-1], [None, lanes])
        schedule.vectorize(inner)
        outer.append(rest)
    return _share_out(schedule, outer, len(outer)) if parallel and outer and work >= _PARALLEL_ELEMENTS else outer


def schedule_elementwise(schedule: Schedule, decisions: Decisions, parallel: bool = True) -> None:
    """Schedule a function without reductions: everything inlined into its outputs, which are vectorized.

    Raises:
        NotScheduledError: The function has a reduction.
    """
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    if any(is_reduction(schedule, block) for block in blocks):
        raise NotScheduledError("the function has a reduction")
    params = list(schedule.mod["main"].params)
    ends = [block for block in blocks[:-1] if any(schedule.get(block).writes[0].source.same_as(param) for param in params)]
    stages = [block for block in blocks[:-1] if block not in ends and not ends and stays(schedule, block)]
    for block in blocks[:-1]:
        if block not in stages and block not in ends:
            schedule.compute_inline(block)
    for block in ends:
        vectorize_elementwise(schedule, block, parallel)
    lanes: Any = decisions["lanes"]
    outer = vectorize_elementwise(schedule, blocks[-1], parallel, lanes)
    for stage in reversed(stages):
        if not outer:
            schedule.compute_inline(stage)
            continue
        schedule.compute_at(stage, outer[-1], preserve_unit_loops=True)
        unroll_and_vectorize(schedule, schedule.get_loops(stage)[len(outer) :])


def default_lanes(extent: int) -> int:
    """Elements of a vector of an element-wise block: a divisor of `extent`, a power of two if that is long enough."""
    power = min(extent & -extent, 4 * VECTOR)
    if power >= VECTOR // 2:
        return power
    return max(count for count in range(1, 4 * VECTOR + 1) if extent % count == 0)


def unroll_and_vectorize(schedule: Schedule, loops: Sequence[Any]) -> None:
    """Unroll all loops but the last, which becomes vectors."""
    for loop in loops[:-1]:
        extent_of(schedule, loop)
        schedule.unroll(loop)
    _vectorize(schedule, loops[-1])


def _vectorize(schedule: Schedule, loop: Any) -> None:
    """Vectorize a loop; vectors whose length is no power of two would be taken apart into single elements."""
    extent = extent_of(schedule, loop)
    power = extent & -extent
    if extent in (1, power) or power < VECTOR:
        schedule.vectorize(loop)
        return
    rest, inner = schedule.split(loop, [None, power])
    schedule.unroll(rest)
    schedule.vectorize(inner)
