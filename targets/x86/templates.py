"""The schedule template of x86: one reduction tiled for vector registers.

Pattern: [padding] -> one reduction -> element-wise tail, the last output axis contiguous (channels of an NHWC
convolution, columns of a matrix product). That covers convolutions, depthwise and grouped ones, dense layers, pools
and means, float or integer.

Strategy: outer loops over tiles of some positions times some contiguous channels; inside, the whole reduction runs with
the tile held in vector registers, one broadcast of the input against vectors of weights. The tail is applied to the
tile while it is in cache. Why not an im2col matrix product: for the small layers of edge models the copy costs as much
as the product.

Every choice goes through a `Chooser`: the defaults give the schedule of an untuned build, a survey lists the search
space, and a pinned point is one candidate of the tuner. All of them are the same template.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from .choices import Chooser
from .kernels.intrinsics import BLOCK_ANNOTATION, DOT_ANNOTATION, DOTS, Dot

VECTOR = 8
"""32-bit lanes of an AVX2 register."""

_REGISTERS = 17
"""AVX2 has sixteen, but an operand may come from memory, so that one more costs nothing."""

_WIDE_REGISTERS = 28
"""Of the 32 that AVX-512 has."""

_FIRST_CACHE, _SECOND_CACHE = 32 * 1024, 256 * 1024
"""Bytes of weights: what stays in the first-level cache, and what would come from the third level again and again."""

_PARALLEL_WORK = 1_000_000
"""Multiply-accumulates below which starting threads costs more than it brings."""

_REDUCTION = 2


class NotScheduledError(Exception):
    """The function does not have the template's pattern; the message says why."""


def tile_reduction(schedule: Schedule, chooser: Chooser, parallel: bool = True) -> None:
    """Apply the template to the function `main` of `schedule`, in place.

    Args:
        schedule: A schedule of an unscheduled function.
        chooser: Who decides the tile sizes.
        parallel: Whether large layers may use several threads.

    Raises:
        NotScheduledError: The function has no reduction or several, or its output does not follow the pattern.
    """
    layer = _find_layer(schedule)
    threads = parallel and layer.work >= _PARALLEL_WORK
    outer = _tile_output(schedule, chooser, layer, threads)
    _tile_sum(schedule, chooser, layer, len(outer))
    if layer.before is not None:
        vectorize_elementwise(schedule, layer.before, threads and not layer.packs_rows)


@dataclass
class _Layer:
    """The blocks of a function that has the pattern, and what its reduction is like.

    Attributes:
        before: The padding, or the packing of rows; None where the input is read as it is.
        main: The reduction.
        stages: Blocks of the tail that stay blocks.
        tail: The block that writes the output.
        loops: Of the tail, before tiling.
        reductions: How many loops of `main` are reductions.
        work: Iterations of `main`.
        vector: Lanes of a vector of output channels.
        dot: The dot product instruction to use, None for ordinary arithmetic.
        intrinsic: Its intrinsic.
        packs_rows: Whether `before` packs rows for a depthwise convolution.
        blocked: Whether a vector must not cross a multiple of its length: weights lie in blocks.
    """

    before: Any | None
    main: Any
    stages: list[Any]
    tail: Any
    loops: list[Any]
    reductions: int
    work: int
    vector: int
    dot: Dot | None
    intrinsic: str
    packs_rows: bool
    blocked: bool


def _find_layer(schedule: Schedule) -> _Layer:
    """Phase 1: one block before the reduction (padding), one behind (the tail), everything else inlined."""
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    reductions = [index for index, block in enumerate(blocks) if _is_reduction(schedule, block)]
    if len(reductions) != 1:
        raise NotScheduledError(f"the function has {len(reductions)} reductions, not one")
    (index,) = reductions
    before, main, after = blocks[:index], blocks[index], blocks[index + 1 :]
    for block in before[:-1]:
        schedule.compute_inline(block)
    stages = [block for block in after[:-1] if _stays(schedule, block)]
    for block in after[:-1]:
        if block not in stages:
            schedule.compute_inline(block)
    tail = after[-1] if after else schedule.cache_write(main, 0, "global")
    loops = list(schedule.get_loops(tail))
    axes = schedule.get(main).iter_vars
    reduced = sum(iv.iter_type == _REDUCTION for iv in axes)
    if not loops or len(loops) != len(axes) - reduced:
        raise NotScheduledError("the tail has another rank than the reduction")
    annotations = schedule.get(main).annotations
    intrinsic = str(annotations.get(DOT_ANNOTATION, ""))
    dot = next((dot for dot in DOTS if intrinsic in (dot.broadcast, dot.packed)), None)
    vector = dot.lanes if dot is not None else int(annotations.get(BLOCK_ANNOTATION, VECTOR))
    return _Layer(
        before=before[-1] if before else None,
        main=main,
        stages=stages,
        tail=tail,
        loops=loops,
        reductions=reduced,
        work=_product(int(iv.dom.extent) for iv in axes),
        vector=vector,
        dot=dot,
        intrinsic=intrinsic,
        packs_rows=dot is not None and intrinsic == dot.packed,
        blocked=dot is not None or BLOCK_ANNOTATION in annotations,
    )


def _tile_output(schedule: Schedule, chooser: Chooser, layer: _Layer, threads: bool) -> list[Any]:
    """Phase 2: tile the tail, share it among threads and bring everything else into the tile.

    Returns:
        The loops outside the tile.
    """
    *rows, channel = layer.loops
    column = rows.pop() if rows else None
    width = _extent(schedule, column) if column is not None else 1
    height = _product(_extent(schedule, loop) for loop in rows)
    options = lane_options(_extent(schedule, channel), layer.vector)
    if layer.packs_rows:
        # Every product has operands of its own: nothing to gain from a larger tile.
        lanes_default, width_default = options[0], max(count for count in range(1, VECTOR + 1) if width % count == 0)
    else:
        unit = VECTOR if layer.dot is None else layer.dot.lanes
        lanes_default, width_default = default_tile(options, width, unit)
    lanes = chooser.pick(schedule, options, lanes_default)
    weights = _weight_bytes(layer, height * width)
    outer_channel, inner_channel = schedule.split(channel, [None, lanes])
    outer = [*rows, outer_channel]
    if column is not None:
        factors = chooser.tile(schedule, column, width_default, max(width_default, _WIDE_REGISTERS))
        outer_column, inner_column = schedule.split(column, factors)
        # Rows outside read all weights for every row; channels outside read the input for every block of channels.
        if height > 1 and weights > _FIRST_CACHE and not layer.packs_rows and chooser.flag(weights > _SECOND_CACHE):
            outer = [outer_channel, *rows]
        outer.append(outer_column)
        schedule.reorder(*outer, inner_column, inner_channel)
        schedule.unroll(inner_column)
    _vectorize(schedule, inner_channel)
    if threads:
        schedule.parallel(next((loop for loop in outer if _extent(schedule, loop) > 1), outer[0]))
    for stage in reversed(layer.stages):
        schedule.compute_at(stage, outer[-1], preserve_unit_loops=True)
        _unroll_and_vectorize(schedule, schedule.get_loops(stage)[len(outer) :])
    schedule.compute_at(layer.main, outer[-1], preserve_unit_loops=True)
    if layer.packs_rows:
        # Rows are packed for one row of the output, which then stays in the first-level cache.
        schedule.compute_at(layer.before, rows[-1], preserve_unit_loops=True)
    return outer


def _tile_sum(schedule: Schedule, chooser: Chooser, layer: _Layer, outside: int) -> None:
    """Phase 3: the reduction around the tile, the tile unrolled into vectors or dot product instructions."""
    inner = list(schedule.get_loops(layer.main)[outside:])
    tile, reduction = inner[: -layer.reductions], inner[-layer.reductions :]
    group = []
    if layer.dot is not None and not layer.packs_rows:
        group = [reduction.pop()]
    if layer.blocked:
        tile[-1:] = schedule.split(tile[-1], [None, layer.vector])
    # The innermost reduction that repeats: of a depthwise convolution the columns of the kernel.
    index = max((i for i, loop in enumerate(reduction) if _extent(schedule, loop) > 1), default=len(reduction) - 1)
    limit = min(_extent(schedule, reduction[index]), VECTOR)
    rest, repeat = schedule.split(reduction[index], chooser.tile(schedule, reduction[index], 1, limit))
    reduction[index] = rest
    schedule.reorder(*reduction, repeat, *tile, *group)
    schedule.unroll(repeat)
    for loop in tile[:-1]:
        schedule.unroll(loop)
    if layer.dot is None:
        _vectorize(schedule, tile[-1])
    initial = schedule.decompose_reduction(layer.main, reduction[0])
    _unroll_and_vectorize(schedule, schedule.get_loops(initial)[outside:])
    if layer.dot is not None:
        schedule.tensorize(tile[-1], layer.intrinsic)


def vectorize_elementwise(schedule: Schedule, block: Any, parallel: bool) -> list[Any]:
    """Vectorize an element-wise block along its last axis and give its outer axes to the threads.

    Returns:
        The loops outside the vectors.
    """
    loops = list(schedule.get_loops(block))
    if not loops:
        return []
    work = _product(int(iv.dom.extent) for iv in schedule.get(block).iter_vars)
    # Vectors over several axes would make the condition of a padding differ from lane to lane.
    lanes = _lanes(_extent(schedule, loops[-1]))
    outer = loops[:-1]
    if lanes > 1:
        rest, inner = schedule.split(loops[-1], [None, lanes])
        schedule.vectorize(inner)
        outer.append(rest)
    if parallel and outer and work >= _PARALLEL_WORK:
        schedule.parallel(next((loop for loop in outer if _extent(schedule, loop) > 1), outer[0]))
    return outer


def schedule_elementwise(schedule: Schedule, parallel: bool = True) -> None:
    """Schedule a function without reductions: everything inlined into its output, which is vectorized.

    Raises:
        NotScheduledError: The function has a reduction.
    """
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    if any(_is_reduction(schedule, block) for block in blocks):
        raise NotScheduledError("the function has a reduction")
    stages = [block for block in blocks[:-1] if _stays(schedule, block)]
    for block in blocks[:-1]:
        if block not in stages:
            schedule.compute_inline(block)
    outer = vectorize_elementwise(schedule, blocks[-1], parallel)
    for stage in reversed(stages):
        if not outer:
            schedule.compute_inline(stage)
            continue
        schedule.compute_at(stage, outer[-1], preserve_unit_loops=True)
        _unroll_and_vectorize(schedule, schedule.get_loops(stage)[len(outer) :])


def registers(lanes: int, width: int) -> int:
    """How many 8-lane registers the sums of a tile of `width` positions times `lanes` channels occupy."""
    return -(-lanes // VECTOR) * width


def lane_options(channels: int, vector: int = VECTOR) -> list[int]:
    """How many contiguous channels a tile may hold: divisors, whole vectors where there are any, smallest first."""
    divisors = [count for count in range(1, 8 * VECTOR + 1) if channels % count == 0]
    return [count for count in divisors if count % vector == 0] or divisors


def default_tile(options: Sequence[int], width: int, vector: int) -> tuple[int, int]:
    """Channels and positions of a tile that loads little for each product and still fits into the registers.

    A tile of v vectors and t positions loads v + t operands for v * t products, and holds v * t sums, v weights and one
    broadcast. Fewer than eight sums leave the multipliers waiting for each other.

    Args:
        options: Possible channels, each a number of whole vectors where there are any.
        width: Positions in a row; a tile takes a divisor.
        vector: Lanes of a register.
    """
    budget = _WIDE_REGISTERS if vector > VECTOR else _REGISTERS
    tiles = []
    for lanes in options:
        vectors = -(-lanes // vector)
        for positions in (count for count in range(1, width + 1) if width % count == 0):
            sums = vectors * positions
            cost = (vectors + positions) / sums + 0.08 * max(0, 8 - sums)
            tiles.append((sums + vectors + 1 > budget, cost, lanes, positions))
    _, _, lanes, positions = min(tiles)
    return lanes, positions


def _weight_bytes(layer: _Layer, positions: int) -> int:
    """Size of the weights of a layer."""
    per_weight = 4 if layer.dot is None else 4 // layer.dot.group
    return layer.work // positions * per_weight


def _unroll_and_vectorize(schedule: Schedule, loops: Sequence[Any]) -> None:
    for loop in loops[:-1]:
        _extent(schedule, loop)
        schedule.unroll(loop)
    _vectorize(schedule, loops[-1])


def _vectorize(schedule: Schedule, loop: Any) -> None:
    """Vectorize a loop; vectors whose length is no power of two would be taken apart into single elements."""
    extent = _extent(schedule, loop)
    power = extent & -extent
    if extent in (1, power) or power < VECTOR:
        schedule.vectorize(loop)
        return
    rest, inner = schedule.split(loop, [None, power])
    schedule.unroll(rest)
    schedule.vectorize(inner)


def _lanes(extent: int) -> int:
    """Elements of a vector of an element-wise block: a divisor of `extent`, a power of two if that is long enough."""
    power = min(extent & -extent, 4 * VECTOR)
    if power >= VECTOR // 2:
        return power
    return max(count for count in range(1, 4 * VECTOR + 1) if extent % count == 0)


def _is_reduction(schedule: Schedule, block: Any) -> bool:
    return any(iv.iter_type == _REDUCTION for iv in schedule.get(block).iter_vars)


def _stays(schedule: Schedule, block: Any) -> bool:
    """Whether a block of the tail is a stage of its own.

    An int32 sum that is widened afterwards: inlined, the simplifier would widen its operands instead, and the product
    behind it would become a full 64-bit one.
    """
    return str(schedule.get(block).writes[0].source.ty.dtype) == "int32"


def _extent(schedule: Schedule, loop: Any) -> int:
    extent = schedule.get(loop).extent
    if not isinstance(extent, int | tvm.tirx.IntImm):
        raise NotScheduledError("how long a loop is changes from tile to tile")
    return int(extent)


def _product(values: Iterable[int]) -> int:
    result = 1
    for value in values:
        result *= value
    return result
