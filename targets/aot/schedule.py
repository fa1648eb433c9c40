"""Schedules for the functions that no kernel of a target covers.

Pattern: [padding] -> one reduction -> element-wise tail, the last output axis contiguous: convolutions on NHWC,
depthwise and grouped ones, dense layers, pools and means, float or integer.

Strategy: an outer loop over tiles of some positions times some channels. The whole reduction of a tile runs with its
sums in registers, and the tail is applied to the tile at once, so that nothing of the size of a feature map is kept but
the padded input. A core with vector registers holds the channels of a tile in vectors, another one in scalars.

Every sum is formed in the order of the definition, so float results do not depend on the tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm.s_tir import Schedule

from ...passes._tvm import tirx, tvm
from .lower import PARALLEL
from .walk import find

_SPATIAL, _REDUCTION = 0, 2
_LONGEST = 5
"""Multiplications of a block that is still inlined: rounding reads its operand several times, so chains of integer operators
would grow exponentially."""
_EXPENSIVE = ("exp", "tanh", "sigmoid", "log", "sqrt", "erf", "pow", "rsqrt")


@dataclass(frozen=True)
class Registers:
    """What a core can hold.

    Attributes:
        lanes: 32-bit lanes of a vector register; 1 for a core without vectors.
        float_sums, integer_sums: Registers that the sums of a tile may take.
        rowwise_padding: Whether inputs are padded anew for each row of the output: a few copies more for much less
            memory.
        unroll: Steps of a sum in one round of its innermost loop, where their number divides the steps.
        even_floats: Whether tiles of floats have one, two, four, ... vectors of channels: LLVM takes others apart.
    """

    lanes: int
    float_sums: int
    integer_sums: int
    rowwise_padding: bool = True
    unroll: int = 1
    even_floats: bool = False


CORE_REGISTERS = Registers(lanes=1, float_sums=2, integer_sums=4)
"""Thirteen general registers; floating point is done by library calls."""
FLOAT_REGISTERS = Registers(lanes=1, float_sums=12, integer_sums=4)
"""The same and 32 floating-point registers."""
HELIUM = Registers(lanes=4, float_sums=4, integer_sums=4)
NEON = Registers(lanes=4, float_sums=16, integer_sums=16, rowwise_padding=False, unroll=4, even_floats=True)
NARROW_NEON = Registers(lanes=4, float_sums=8, integer_sums=8, rowwise_padding=False, unroll=4)
"""Of a 32-bit core: sixteen vector registers."""


def schedule(func: tirx.PrimFunc, registers: Registers) -> tirx.PrimFunc:
    """The function with a schedule; as it was where none applies."""
    try:
        made = Schedule(tvm.IRModule({"main": func.without_attr("global_symbol")}))
        blocks = made.get_child_blocks(made.get_sblock("root"))
        # Several reductions, as in softmax, feed one another through stages that inlining would multiply.
        if not blocks or sum(_is_reduction(made, block) for block in blocks) > 1:
            return func
        _inline(made)
        blocks = made.get_child_blocks(made.get_sblock("root"))
        reductions = [block for block in blocks if _is_reduction(made, block)]
        if not reductions:
            loops = made.get_loops(blocks[-1])
            for block in reversed(blocks[:-1]):
                # A row of it at a time.
                made.compute_at(block, loops[-2] if len(loops) > 1 else loops[-1], preserve_unit_loops=True)
            _vectorize(made, blocks[-1], registers)
            _share_out(made, made.get_loops(blocks[-1])[:-1])
        elif len(reductions) == 1:
            _tile(made, blocks, blocks.index(reductions[0]), registers)
        scheduled = made.mod["main"]
    except (tvm.s_tir.ScheduleError, tvm.error.InternalError, _Unfit):
        return func
    return scheduled


class _Unfit(Exception):
    """The function does not have the pattern."""


def _inline(made: Schedule) -> None:
    """Inline what is cheap: all element-wise blocks but padding, stored sums, and what is expensive inside a sum."""
    for block in made.get_child_blocks(made.get_sblock("root"))[:-1]:
        if _is_reduction(made, block) or not made.get_consumers(block):
            continue
        if _is_padding(made, block) or _is_stored_sum(made, block) or _is_expensive(made, block):
            continue
        if len(find(made.get(block).body, tirx.Mul)) > _LONGEST:
            continue
        try:
            made.compute_inline(block)
        except tvm.s_tir.ScheduleError:
            continue


def _tile(made: Schedule, blocks: list[Any], index: int, registers: Registers) -> None:
    before, main, after = blocks[:index], blocks[index], blocks[index + 1 :]
    reduced = sum(iv.iter_type == _REDUCTION for iv in made.get(main).iter_vars)
    if len(before) > 1:
        raise _Unfit
    tail = after[-1] if after else made.cache_write(main, 0, "global")
    stages = after[:-1]
    loops = made.get_loops(tail)
    if len(loops) != len(made.get(main).iter_vars) - reduced or not loops:
        raise _Unfit

    width = _extent(made, loops[-2]) if len(loops) > 1 else 1
    dtype = str(made.get(main).writes[0].source.ty.dtype)
    if dtype == "float16" and registers.lanes > 1:
        registers = replace(registers, lanes=2 * registers.lanes)
    lanes, positions = _tile_size(_extent(made, loops[-1]), width, registers, dtype)
    outer_channel, inner_channel = made.split(loops[-1], [None, lanes])
    outer = [*loops[:-1], outer_channel]
    tile = [inner_channel]
    if len(loops) > 1:
        outer_width, inner_width = made.split(loops[-2], [None, positions])
        outer = [*loops[:-2], outer_channel, outer_width]
        tile = [inner_width, inner_channel]
    made.reorder(*outer, *tile)
    _finish_tile(made, tile, registers, lanes)
    for stage in reversed(stages):
        made.compute_at(stage, outer[-1], preserve_unit_loops=True)
        _finish_tile(made, made.get_loops(stage)[len(outer) :], registers, lanes)
    made.compute_at(main, outer[-1], preserve_unit_loops=True)
    inner = made.get_loops(main)[len(outer) :]
    kept, reduction = list(inner[:-reduced]), list(inner[-reduced:])
    rounds = _largest_divisor(_extent(made, reduction[-1]), registers.unroll)
    if rounds > 1:
        reduction[-1:] = made.split(reduction[-1], [None, rounds])
        made.unroll(reduction[-1])
    made.reorder(*reduction, *kept)
    _finish_tile(made, kept, registers, lanes)
    start = made.decompose_reduction(main, reduction[0])
    _finish_tile(made, made.get_loops(start)[len(outer) :], registers, lanes)
    for block in before:
        if registers.rowwise_padding and len(loops) > 2 and _is_padding(made, block):
            made.compute_at(block, loops[-3], preserve_unit_loops=True)
        _vectorize(made, block, registers)
    _share_out(made, outer)


def _share_out(made: Schedule, loops: list[Any]) -> None:
    """Mark the longest of the loops around what is written: threads may divide it."""
    if loops:
        made.annotate(max(loops, key=lambda loop: _extent(made, loop)), PARALLEL, 1)


def _finish_tile(made: Schedule, loops: list[Any], registers: Registers, lanes: int) -> None:
    for loop in loops[:-1]:
        made.unroll(loop)
    if registers.lanes > 1 and lanes % registers.lanes == 0:
        made.vectorize(loops[-1])
    else:
        made.unroll(loops[-1])


def _vectorize(made: Schedule, block: Any, registers: Registers) -> None:
    """An element-wise block, its innermost axis in vectors where the core has them."""
    loops = made.get_loops(block)
    if not loops or registers.lanes == 1:
        return
    lanes = _largest_divisor(_extent(made, loops[-1]), 4 * registers.lanes)
    if lanes >= registers.lanes:
        made.vectorize(made.split(loops[-1], [None, lanes])[1])


def _tile_size(channels: int, width: int, registers: Registers, dtype: str) -> tuple[int, int]:
    """Channels and positions of a tile: whole vectors if there are any, then the fewest loads for a multiplication."""
    limit = registers.float_sums if dtype.startswith("float") else registers.integer_sums
    vectors = [n for n in range(registers.lanes, channels + 1, registers.lanes) if channels % n == 0]
    if registers.even_floats and dtype.startswith("float"):
        vectors = [n for n in vectors if n & (n - 1) == 0]
    lanes = registers.lanes if vectors else 1
    found = []
    for chosen in vectors or [n for n in range(1, channels + 1) if channels % n == 0]:
        for positions in range(1, width + 1):
            sums = chosen // lanes * positions
            if width % positions == 0 and sums <= limit:
                found.append((lanes / chosen + 1 / positions, -chosen, positions))
    _, chosen, positions = min(found)
    return -chosen, positions


def _largest_divisor(extent: int, limit: int) -> int:
    return max(count for count in range(1, max(1, limit) + 1) if extent % count == 0)


def _is_reduction(made: Schedule, block: Any) -> bool:
    return any(iv.iter_type == _REDUCTION for iv in made.get(block).iter_vars)


def _is_padding(made: Schedule, block: Any) -> bool:
    return "if_then_else" in _calls(made.get(block).body) and any(
        _is_reduction(made, consumer) for consumer in made.get_consumers(block)
    )


def _is_stored_sum(made: Schedule, block: Any) -> bool:
    """An int32 sum that is widened afterwards: inlined, the simplifier would widen its operands instead."""
    return str(made.get(block).writes[0].source.ty.dtype) == "int32" and any(
        _is_reduction(made, producer) for producer in made.get_producers(block)
    )


def _is_expensive(made: Schedule, block: Any) -> bool:
    names = _calls(made.get(block).body)
    return bool(names & set(_EXPENSIVE)) and any(_is_reduction(made, c) for c in made.get_consumers(block))


def _calls(stmt: tirx.Stmt) -> set[str]:
    return {str(getattr(call.op, "name", "")).rpartition(".")[2] for call in find(stmt, tvm.ir.Call)}


def _extent(made: Schedule, loop: Any) -> int:
    return int(made.get(loop).extent)
