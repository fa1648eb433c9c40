"""What may be decided for a function on x86; the formulas here take the default decisions."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from ..kernels.decisions import Choice, Decisions, Workload
from .layer import VECTOR, Layer, NotScheduledError, dtypes_of, extents, find_layer, is_reduction, lanes_of
from .templates import default_lanes, innermost_sum, schedule_elementwise, tile_reduction
from .winograd import is_winograd, schedule_winograd, winograd_choice, winograd_work

_REGISTERS = 16
"""Of AVX2. An operand may come from memory, but one more than these doubles the time of a layer: LLVM spills sums."""

_WIDE_REGISTERS = 31
"""Of the 32 that AVX-512 has."""

_REQUANTIZED = 14
"""Sums of integers in a tile of AVX-512: requantization has a register beside each, what more there is goes to memory and
comes back. So many hide the latency of the products."""

_PACKED = 6
"""Positions of a tile of a depthwise convolution whose rows are packed."""

_SMALL_WINDOW = 9
"""Positions of an image that is a tile by itself."""

_CONSTANTS = 2
"""Vectors of channels whose factors, five registers each, stay in registers beside as many sums."""

_FIRST_CACHE, _SECOND_CACHE = 32 * 1024, 256 * 1024
"""Bytes of weights: what stays in the first-level cache, and what would come from the third level again and again."""


_PAGE, _SETS_LINES = 4096, 8
"""Bytes that a first-level cache of 64 sets wraps around at, and lines of a set."""


def choice_of(mod: tvm.IRModule) -> Choice:
    """What may be decided for a function, `main` of a module.

    Raises:
        NotScheduledError: No template fits; the message says why.
    """
    if "tirx.is_scheduled" in (mod["main"].attrs or {}):
        raise NotScheduledError("the function has its schedule")
    schedule = Schedule(mod)
    with _as_reason():  # what is written by hand may have no root
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    if not blocks:
        raise NotScheduledError("the function has no blocks")
    if is_winograd(schedule, blocks):
        with _as_reason():
            return winograd_choice(mod)
    if any(is_reduction(schedule, block) for block in blocks):
        with _as_reason():
            return _reduction_choice(mod, find_layer(schedule)[0])
    return _elementwise_choice(mod, extents(schedule, blocks[-1]), len(blocks))


def work_of(mod: tvm.IRModule) -> int:
    """Multiply-accumulates of a function, or other innermost operations; elements of one without a reduction.

    Raises:
        NotScheduledError: No template fits.
    """
    schedule = Schedule(mod)
    with _as_reason():
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
        if is_winograd(schedule, blocks):
            return winograd_work(schedule)
        if any(is_reduction(schedule, block) for block in blocks):
            return find_layer(schedule)[0].work
    return math.prod(extents(schedule, blocks[-1]))


def schedule_as(mod: tvm.IRModule, decisions: Decisions, parallel: bool = True) -> Schedule:
    """The schedule of a function as is decided.

    Args:
        mod: The function, `main` of a module.
        decisions: A point of its space.
        parallel: Whether large layers may use several threads.

    Raises:
        NotScheduledError: No template fits; the message says why.
    """
    schedule = Schedule(mod)
    apply = schedule_elementwise if "lanes" in decisions else schedule_winograd if "tile_rows" in decisions else tile_reduction
    with _as_reason():
        apply(schedule, decisions, parallel)
    return schedule


@contextlib.contextmanager
def _as_reason() -> Iterator[None]:
    """A template that meets what it was not made for does not fit: TVM has a class of its own for each case."""
    try:
        yield
    except NotScheduledError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise NotScheduledError(lines[0] if lines else "the template does not apply") from error


def _elementwise_choice(mod: tvm.IRModule, outputs: Sequence[int], blocks: int) -> Choice:
    last = outputs[-1] if outputs else 1
    options = [count for count in (4, 8, 16, 32, 64) if last % count == 0]
    shape = {"reads": _sizes(mod), "outputs": list(outputs), "blocks": blocks, "dtypes": dtypes_of(mod)}
    default = {"lanes": default_lanes(last)}
    return Choice(Workload("x86", "elementwise", shape), default, lambda: [{"lanes": count} for count in options])


def _reduction_choice(mod: tvm.IRModule, layer: Layer) -> Choice:
    shape = {
        "reads": _sizes(mod),
        "outputs": list(layer.outputs),
        "sums": list(layer.sums),
        "product": "" if layer.dot is None else layer.dot.broadcast,
        "block": layer.blocked,
        "before": layer.before,
        "stages": layer.stages,
        **({"cropped": 1} if layer.cropped else {}),
        **({"width": layer.width} if layer.width != layer.positions else {}),
        "dtypes": layer.dtypes,
    }
    kernel = "depthwise" if layer.packs_rows else "reduction"
    if not layer.packs_rows and layer.blocked:
        kernel = "conv2d" if len(layer.outputs) == 4 else "dense"
    default = _default(layer, _apart(mod, layer))
    lanes, reads = lanes_of(mod), _sizes(mod)
    strided = len(reads) > 1 and round(reads[-2] / layer.width) > 1
    if _is_window(layer):
        wide = lanes > VECTOR and layer.channels % lanes == 0
        default = _wide_window(layer, default, lanes, strided) if wide else _window(layer, default, strided)
    return Choice(Workload("x86", kernel, shape), default, lambda: _points(layer, default))


def _sizes(mod: tvm.IRModule) -> list[int]:
    """The shape of what a function reads first."""
    return [int(dim) for dim in mod["main"].params[0].ty.shape]


def _apart(mod: tvm.IRModule, layer: Layer) -> int:
    """Bytes between what two neighbouring positions read, where the input has positions; otherwise 0."""
    param = mod["main"].params[0].ty
    shape = [int(dim) for dim in param.shape]
    if len(shape) < 2 or layer.width < 2:
        return 0
    return round(shape[-2] / layer.width) * shape[-1] * np.dtype(str(param.dtype)).itemsize


def _default(layer: Layer, apart: int) -> Decisions:
    options = lane_options(layer.channels, layer.vector, layer.positions)
    # Windows whose channels do not mix, of floats: a band of rows stays in the first-level cache, and rows share it.
    window = _is_window(layer)
    rows = 1
    if layer.packs_rows:
        # Every product has operands of its own: nothing to gain from a larger tile. Of one that is a whole row LLVM keeps what
        # is packed in registers, and takes it apart.
        channels, positions = options[0], max(_divisors(layer.positions, min(_PACKED, max(1, layer.positions - 1))))
    elif window:
        # Of channels that fill no vector as many as there are: one at a time takes five times as long.
        channels = options[0] if options[0] % VECTOR == 0 else max(count for count in options if count <= 2 * VECTOR)
        positions = max(_divisors(layer.positions, 4))
        rows = max(count for count in (1, 2, 3, 4) if layer.rows[-1] % count == 0)
    else:
        # What is a page apart falls into the same set of a cache, of which each has eight lines or a few more.
        most = _SETS_LINES - 1 if apart and apart % _PAGE == 0 else layer.positions
        requantized = layer.dot is not None and layer.lanes > VECTOR
        streamed = layer.dot is None and layer.weight_bytes > _SECOND_CACHE
        # With loops over taps around that over channels, sums beyond the registers wait for memory in every step: no exception
        # for them, and vectors may be halves of what is packed together.
        whole = not streamed or layer.lanes > VECTOR or math.prod(layer.sums[:-1]) == 1
        if not whole:
            options = sorted({VECTOR, *options})
        channels, positions = default_tile(options, layer.positions, layer.lanes, most, requantized, streamed, whole)
    # Rows outside read all weights for every row; channels outside read the input for every block of channels.
    several = math.prod(layer.rows) > 1
    by_channels = several and layer.weight_bytes > _SECOND_CACHE and not layer.packs_rows and not window
    # Rows that no kernels share are written once in bands, too, and then read from the first-level cache.
    alone = layer.dot is not None and several and layer.rows[-1] > 1 and layer.sums[0] == 1
    band = window or (alone and not by_channels)
    return {
        "channels": channels,
        "positions": positions,
        "rows": rows,
        "order": "channels" if by_channels else "rows",
        "border": "none" if not layer.before or layer.packs_rows else "band" if band else "whole",
        "epilogue": "tile",
        "taps": "loop",
        "unroll": 1,
    }


def _is_window(layer: Layer) -> bool:
    """Whether channels do not mix in windows over a padded input, of floats: a depthwise convolution."""
    return layer.dot is None and not layer.blocked and layer.before > 0 and len(layer.rows) > 0


def _window(layer: Layer, default: Decisions, strided: bool) -> Decisions:
    """Windows in registers of 256 bits, eight sums in a tile: of more LLVM spills some.

    The padded input is written whole; with strides bands of two rows are better. Of an odd number of rows a tile has one.
    Measured with AVX2 on the layers of MobileNets, YuNet and DS-CNN.
    """
    if math.prod(layer.outputs[1:-1]) <= _SMALL_WINDOW:
        return default
    vectors = -(-int(str(default["channels"])) // VECTOR)
    few, some, many = (max(_divisors(layer.positions, most // vectors)) for most in (4, 6, 8))
    rows = 1 if layer.rows[-1] % 2 or layer.channels % VECTOR or few < 3 <= some else 2
    return {
        **default,
        "positions": many if rows == 1 else few,
        "rows": rows,
        "border": "band" if strided and rows > 1 else "whole",
        "taps": "unrolled" if 1 < layer.sums[0] <= 16 else "loop",
    }


def _wide_window(layer: Layer, default: Decisions, lanes: int, strided: bool) -> Decisions:
    """Windows in registers of 512 bits, one of channels.

    The padded input is written whole, and what a block of channels reads of it stays in the first-level cache; with strides
    bands of rows are better. Searches on two CPUs, which do 512 bits at once and in halves, ended with points of this kind.
    """
    return {
        **default,
        "channels": lanes,
        "positions": max(_divisors(layer.positions, 4)),
        "rows": max(count for count in (1, 2) if layer.rows[-1] % count == 0),
        "order": "rows" if strided else "channels",
        "border": "band" if strided else "whole",
        "taps": "unrolled" if 1 < layer.sums[0] <= 16 else "loop",
    }


def _points(layer: Layer, default: Decisions) -> Iterator[Decisions]:
    """All that is sensible."""
    index = innermost_sum(layer)
    has_rows = bool(layer.rows) and layer.rows[-1] > 1
    has_bands = len(layer.outputs) > 2 and layer.stages > 0 and layer.width == layer.positions
    taps = math.prod(extent for place, extent in enumerate(layer.sums) if place != index)
    axes: dict[str, Sequence[Any]] = {
        "channels": lane_options(layer.channels, layer.vector, layer.positions),
        "positions": _divisors(layer.positions, _WIDE_REGISTERS),
        "rows": [count for count in (1, 2, 3, 4) if not layer.packs_rows and has_rows and layer.rows[-1] % count == 0] or [1],
        "order": ["rows", "channels"] if has_rows and not layer.packs_rows else ["rows"],
        "border": ["whole", "band"] if layer.before and not layer.packs_rows and has_rows else [default["border"]],
        "epilogue": ["tile", "band"] if has_bands else ["tile"],
        "taps": ["loop", "unrolled", "inner"] if 1 < taps <= 16 else ["loop"],
        "unroll": _divisors(layer.sums[index], VECTOR),
    }
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values))
        if _is_sensible(layer, point, taps):
            yield point


def _is_sensible(layer: Layer, point: dict[str, Any], taps: int) -> bool:
    most = _WIDE_REGISTERS
    used = registers(point["channels"], point["positions"] * point["rows"], layer.lanes)
    if used > most:
        return False
    # Unrolling long reductions of large tiles only costs instruction cache and compile time.
    unrolled = point["taps"] != "loop"
    steps = point["unroll"] * (taps if unrolled else 1)
    if used * steps > 4 * most * (3 if unrolled else 1):
        return False
    # A band would be written again for every block of channels.
    return not (point["border"] == "band" and point["order"] == "channels" and point["epilogue"] == "tile")


def registers(channels: int, width: int, lanes: int) -> int:
    """How many registers of so many lanes the sums of a tile of `width` positions times `channels` occupy."""
    return -(-channels // lanes) * width


def lane_options(channels: int, vector: int = VECTOR, positions: int = 2) -> list[int]:
    """How many contiguous channels a tile may hold: divisors, whole vectors where there are any, smallest first.

    Args:
        channels: Of the layer.
        vector: Lanes of a vector.
        positions: In a row; where there is one, channels alone fill the registers with sums.
    """
    divisors = _divisors(channels, (8 if positions > 1 else 16) * VECTOR)
    return [count for count in divisors if count % vector == 0] or divisors


def default_tile(
    options: Sequence[int],
    width: int,
    vector: int,
    most: int | None = None,
    requantized: bool = False,
    streamed: bool = False,
    lacks: bool = True,
) -> tuple[int, int]:
    """Channels and positions of a tile that loads little for each product and still fits into the registers.

    A tile of v vectors and t positions loads v + t operands for v * t products, and holds v * t sums, v weights (where t > 1)
    and one broadcast. Fewer than eight sums leave the multipliers waiting for each other.

    Args:
        options: Possible channels, each a number of whole vectors where there are any.
        width: Positions in a row; a tile takes a divisor.
        vector: Lanes of a register.
        most: No more positions than these.
        requantized: Whether requantization of registers of 512 bits follows.
        streamed: Whether weights come from the second-level cache: those that are used for one of several positions take as
            long as two operands, and a tile that lacks one register may take less time.
        lacks: Whether it may lack one then.
    """
    budget = _WIDE_REGISTERS if vector > VECTOR else _REGISTERS
    tiles = []
    for lanes in options:
        vectors = -(-lanes // vector)
        for positions in _divisors(width, most or width):
            sums = vectors * positions
            loaded = 2 * vectors if streamed and positions == 1 < width else vectors
            cost = (loaded + positions) / sums + 0.08 * max(0, 8 - sums)
            # Weights that are used once come from memory, as operands of their products.
            held = vectors if positions > 1 else 0
            lacking = sums + held + 1 - budget
            if streamed and lacks and lacking == 1:
                lacking, cost = 0, 2 * cost
            spills = lacking > 0 or (requantized and sums > _REQUANTIZED)
            tiles.append((spills, requantized and (vectors > _CONSTANTS or sums < _REQUANTIZED // 2), cost, lanes, positions))
    *_, lanes, positions = min(tiles)
    return lanes, positions


def _divisors(extent: int, most: int) -> list[int]:
    return [count for count in range(1, min(extent, most) + 1) if extent % count == 0]
