"""The schedule template of x86: one reduction tiled for vector registers.

Pattern: [padding] -> one reduction -> element-wise tail, the last output axis contiguous (channels of an NHWC
convolution, columns of a matrix product). That covers convolutions, depthwise and grouped ones, dense layers, pools
and means, float or integer.

Strategy: an outer loop over tiles of `width` positions times `lanes` contiguous channels; inside it the whole reduction
runs with the tile held in vector registers, one broadcast of the input against one vector of weights. The tail is
applied to the tile while it is in cache. Why not an im2col matrix product: for the small layers of edge models the copy
costs as much as the product.

Every choice goes through a `Chooser`: the defaults give the schedule of an untuned build, a survey lists the search
space, and a pinned point is one candidate of the tuner. All of them are the same template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tvm.s_tir import Schedule

from .kernels.intrinsics import DOT_ANNOTATION, DOTS, LANES_SUFFIX

VECTOR = 8
"""32-bit lanes of an AVX2 register. Wider registers are left to LLVM, which joins neighbouring vectors."""

_ACCUMULATORS = 12
"""Vectors of a tile that fit into sixteen registers beside the operands."""

_PARALLEL_WORK = 150_000
"""Multiply-accumulates below which starting threads costs more than it brings."""

_SPATIAL, _REDUCTION = 0, 2


class NotScheduledError(Exception):
    """The function does not have the template's pattern; the message says why."""


class Chooser(Protocol):
    """Decides the parameters of a template."""

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        """Two factors of a loop's extent, the inner one at most `limit`, by default `innermost`."""

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        """One of `options`."""


class Defaults:
    """Takes the defaults: a schedule without a search."""

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        extent = _extent(schedule, loop)
        return schedule.sample_perfect_tile(loop, 2, limit, decision=[extent // innermost, innermost])

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        return _categorical(schedule, options, list(options).index(default))


class Survey(Defaults):
    """Takes the defaults and notes what else could have been chosen.

    Attributes:
        options: The options of each choice, in the order in which the template asks.
        default: The default of each choice.
    """

    def __init__(self) -> None:
        self.options: list[list[int]] = []
        self.default: list[int] = []

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        extent = _extent(schedule, loop)
        self.options.append([count for count in range(1, min(extent, limit) + 1) if extent % count == 0])
        self.default.append(innermost)
        return super().tile(schedule, loop, innermost, limit)

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        self.options.append(list(options))
        self.default.append(default)
        return super().pick(schedule, options, default)


class Pinned(Defaults):
    """Takes the choices of a point of the search space.

    Args:
        point: One value for each choice, in the order of `Survey.options`.
    """

    def __init__(self, point: Sequence[int]) -> None:
        self._rest = list(point)

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        return super().tile(schedule, loop, self._rest.pop(0), limit)

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        return super().pick(schedule, options, self._rest.pop(0))


def tile_reduction(schedule: Schedule, chooser: Chooser, parallel: bool = True) -> None:
    """Apply the template to the function `main` of `schedule`, in place.

    Args:
        schedule: A schedule of an unscheduled function.
        chooser: Who decides the tile sizes.
        parallel: Whether large layers may use several threads.

    Raises:
        NotScheduledError: The function has no reduction or several, or its output does not follow the pattern.
    """
    before, main, after = _pattern(schedule)
    spatial = [iv for iv in schedule.get(main).iter_vars if iv.iter_type == _SPATIAL]
    reduced = [iv for iv in schedule.get(main).iter_vars if iv.iter_type == _REDUCTION]
    work = _product(int(iv.dom.extent) for iv in schedule.get(main).iter_vars)

    # Phase 1: one block before (padding), one behind (the tail).
    for block in before[:-1]:
        schedule.compute_inline(block)
    stages = []
    for block in after[:-1]:
        if _stays(schedule, block):
            stages.append(block)
        else:
            schedule.compute_inline(block)
    tail = after[-1] if after else schedule.cache_write(main, 0, "global")
    loops = schedule.get_loops(tail)
    if len(loops) != len(spatial):
        raise NotScheduledError("the tail has another rank than the reduction")

    intrinsic = schedule.get(main).annotations.get(DOT_ANNOTATION)
    packed = intrinsic is not None and str(intrinsic).endswith(LANES_SUFFIX)

    # Phase 2: tile the tail, share it among threads and bring the reduction into the tile.
    width = _extent(schedule, loops[-2]) if len(loops) > 1 else 1
    channels = _extent(schedule, loops[-1])
    least = VECTOR if intrinsic is None else _intrinsic_lanes(str(intrinsic))
    lanes_options = lane_options(channels, least)
    lanes_default = default_lanes(lanes_options, width)
    lanes = chooser.pick(schedule, lanes_options, lanes_default)
    outer_channel, inner_channel = schedule.split(loops[-1], [None, lanes])
    if len(loops) > 1:
        limit = max(1, 2 * _ACCUMULATORS * VECTOR // max(lanes_options[0], VECTOR))
        default = default_width(width, lanes_default)
        outer_width, inner_width = schedule.split(loops[-2], chooser.tile(schedule, loops[-2], default, limit))
        outer = [*loops[:-2], outer_channel, outer_width]
        schedule.reorder(*outer, inner_width, inner_channel)
        schedule.unroll(inner_width)
    else:
        outer = [outer_channel]
    schedule.vectorize(inner_channel)
    threads = parallel and work >= _PARALLEL_WORK
    if threads:
        # Rows where there are any, otherwise blocks of channels.
        schedule.parallel(next((loop for loop in loops[:-2] if _extent(schedule, loop) > 1), outer_channel))
    for stage in reversed(stages):
        schedule.compute_at(stage, outer[-1], preserve_unit_loops=True)
        inner = schedule.get_loops(stage)[len(outer) :]
        for loop in inner[:-1]:
            schedule.unroll(loop)
        schedule.vectorize(inner[-1])
    schedule.compute_at(main, outer[-1], preserve_unit_loops=True)
    if packed:
        # Rows are packed for one row of the output, which then stays in the first-level cache.
        schedule.compute_at(before[-1], loops[-3], preserve_unit_loops=True)

    # Phase 3: the reduction outside, the tile unrolled and vectorized inside.
    inner = schedule.get_loops(main)[len(outer) :]
    tile, reduction = list(inner[: -len(reduced)]), list(inner[-len(reduced) :])
    group = []
    if intrinsic is not None:
        if not packed:
            group = [reduction.pop()]
        tile[-1:] = schedule.split(tile[-1], [None, _intrinsic_lanes(str(intrinsic))])
    # The innermost reduction that repeats: of a depthwise convolution the columns of the kernel.
    index = max((i for i, loop in enumerate(reduction) if _extent(schedule, loop) > 1), default=len(reduction) - 1)
    limit = min(_extent(schedule, reduction[index]), VECTOR)
    rest, repeat = schedule.split(reduction[index], chooser.tile(schedule, reduction[index], 1, limit))
    reduction[index : index + 1] = [rest]
    schedule.reorder(*reduction, repeat, *tile, *group)
    schedule.unroll(repeat)
    for loop in tile[:-1]:
        schedule.unroll(loop)
    if intrinsic is None:
        schedule.vectorize(tile[-1])
    initial = schedule.decompose_reduction(main, reduction[0])
    initial_loops = schedule.get_loops(initial)[len(outer) :]
    for loop in initial_loops[:-1]:
        schedule.unroll(loop)
    schedule.vectorize(initial_loops[-1])
    if intrinsic is not None:
        schedule.tensorize(tile[-1], str(intrinsic))

    # Phase 4: what stands before it.
    if before:
        vectorize_elementwise(schedule, before[-1], parallel and not packed)


def registers(lanes: int, width: int) -> int:
    """How many vector registers a tile of `width` positions times `lanes` channels occupies."""
    return -(-lanes // VECTOR) * width


def vectorize_elementwise(schedule: Schedule, block: Any, parallel: bool) -> None:
    """Vectorize an element-wise block along its last axis and give its outer axes to the threads."""
    loops = schedule.get_loops(block)
    if not loops:
        return
    # Vectors over several axes would make the condition of a padding differ from lane to lane.
    lanes = max(count for count in range(1, 4 * VECTOR + 1) if _extent(schedule, loops[-1]) % count == 0)
    outer = list(loops[:-1])
    if lanes > 1:
        rest, inner = schedule.split(loops[-1], [None, lanes])
        schedule.vectorize(inner)
        outer.append(rest)
    work = _product(int(iv.dom.extent) for iv in schedule.get(block).iter_vars)
    if parallel and outer and work >= _PARALLEL_WORK:
        schedule.parallel(schedule.fuse(*outer[:-1]) if len(outer) > 1 else outer[0])


def schedule_elementwise(schedule: Schedule, parallel: bool = True) -> None:
    """Schedule a function without reductions: everything inlined into its output, which is vectorized.

    Raises:
        NotScheduledError: The function has a reduction.
    """
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    if any(_is_reduction(schedule, block) for block in blocks):
        raise NotScheduledError("the function has a reduction")
    for block in blocks[:-1]:
        schedule.compute_inline(block)
    vectorize_elementwise(schedule, blocks[-1], parallel)


def lane_options(channels: int, least: int = VECTOR) -> list[int]:
    """How many contiguous channels a tile may hold: divisors, whole vectors where there are any, smallest first."""
    divisors = [count for count in range(1, 8 * VECTOR + 1) if channels % count == 0]
    return [count for count in divisors if count % least == 0] or divisors


def default_lanes(options: Sequence[int], width: int) -> int:
    """Two vectors where positions fill the rest of the registers, more where there are few positions."""
    wanted = 2 * VECTOR if width >= 4 else 4 * VECTOR if width > 1 else 8 * VECTOR
    return max((count for count in options if count <= wanted), default=options[0])


def default_width(width: int, lanes: int) -> int:
    """The largest divisor of `width` with which a tile stays in registers."""
    most = max(1, _ACCUMULATORS // -(-lanes // VECTOR))
    return max(count for count in range(1, most + 1) if width % count == 0)


def _pattern(schedule: Schedule) -> tuple[list[Any], Any, list[Any]]:
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    reductions = [index for index, block in enumerate(blocks) if _is_reduction(schedule, block)]
    if len(reductions) != 1:
        raise NotScheduledError(f"the function has {len(reductions)} reductions, not one")
    index = reductions[0]
    return blocks[:index], blocks[index], blocks[index + 1 :]


def _is_reduction(schedule: Schedule, block: Any) -> bool:
    return any(iv.iter_type == _REDUCTION for iv in schedule.get(block).iter_vars)


def _stays(schedule: Schedule, block: Any) -> bool:
    """Whether a block of the tail is a stage of its own.

    An int32 sum that is widened afterwards: inlined, the simplifier would widen its operands instead, and the product
    behind it would become a full 64-bit one.
    """
    return str(schedule.get(block).writes[0].source.ty.dtype) == "int32"


def _intrinsic_lanes(name: str) -> int:
    """int32 results of an intrinsic of `kernels.intrinsics`."""
    return next(dot.lanes for dot in DOTS if name in (dot.broadcast, dot.packed))


def _extent(schedule: Schedule, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _product(values: Any) -> int:
    result = 1
    for value in values:
        result *= value
    return result


def _categorical(schedule: Schedule, options: Sequence[int], decision: int | None) -> Any:
    return schedule.sample_categorical(list(options), [1.0 / len(options)] * len(options), decision=decision)
