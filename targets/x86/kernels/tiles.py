"""Integer convolution on the tiles of AMX: sixteen positions by sixteen channels, 64 products a result and instruction.

The operator `tvmcompress.x86_tile_conv2d` computes what `qconv2d` computes. Rows of the padded input are flattened to bytes,
as `convolution` does where channels fill no group: the columns of a kernel are one run, whose last 64 bytes reach into the
next pixels and meet weights of zero there. So a tile of the input is sixteen runs, one for each position, a stride of
pixels apart, and a tile of weights is 64 steps of the run for sixteen channels.

Two tiles of positions and two of channels are multiplied at a time. Where they do not divide a row or the channels the
last tile overlaps the one before and computes the same again. Sums begin at the bias.

TVM's schedules cannot say this, so the function is built directly. A processor gives a process the tiles when it asks, see
`library`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from ....passes._tvm import relax, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.conv import output_sizes
from ....passes.integer.registry import register_operator, tensor_type
from .convolution import packed_call
from .intrinsics import OPAQUE
from .requantize import requantized_element

FEATURES = frozenset({"amx-tile", "amx-int8"})
"""The instruction sets."""

_ROWS, _LANES, _STEPS = 16, 16, 64
"""Of a tile: positions, channels, and bytes of a run."""
_OFFSET = 128
"""What makes an int8 activation unsigned."""
_LEAST_USE = 0.3
"""Share of a tile of weights that is no filler."""
_LEAST_POSITIONS = 6
_SECOND_CACHE = 512 * 1024
_LEAST_SUM, _LEAST_PRODUCTS = 96, 1_000_000
_PARALLEL_PRODUCTS = 4_000_000
"""Below, starting threads costs more than it brings."""
_SHARES = 8
"""Pieces of work that threads may take."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a layer.

    Attributes:
        size: (H, W) of the input.
        channels: Of the input.
        result: (OH, OW) of the result.
        outputs: Channels of the result.
        kernel: (KH, KW).
        strides: Down, right.
        padding: Top, left, bottom, right.
    """

    size: tuple[int, int]
    channels: int
    result: tuple[int, int]
    outputs: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def run(self) -> int:
        """Bytes of the columns of a kernel."""
        return self.kernel[1] * self.channels

    @property
    def steps(self) -> int:
        """Tiles of weights for a row of the kernel."""
        return -(-self.run // _STEPS)

    @property
    def blocks(self) -> int:
        """Tiles of channels."""
        return -(-self.outputs // _LANES)

    @property
    def tiles_in_row(self) -> int:
        """Tiles of positions in a row."""
        return -(-self.result[1] // _ROWS)

    @property
    def positions(self) -> int:
        """Of a tile."""
        return -(-self.result[1] // self.tiles_in_row)

    @property
    def products(self) -> int:
        """Multiply-accumulates."""
        return math.prod(self.result) * self.outputs * self.kernel[0] * self.run

    @property
    def pays(self) -> bool:
        """Whether tiles are filled well enough, and the sums are long enough, to take less time than other products do."""
        filled = self.run / (self.steps * _STEPS) >= _LEAST_USE and self.positions >= _LEAST_POSITIONS
        enough = self.kernel[0] * self.run >= _LEAST_SUM and self.products >= _LEAST_PRODUCTS
        return filled and enough and self.outputs % _LANES == 0


def pack_tiles(weight: np.ndarray, bias: np.ndarray, zero_point: int) -> tuple[np.ndarray, np.ndarray]:
    """Prepare the operands.

    Args:
        weight: int8 (O, KH, KW, C), O a multiple of sixteen.
        bias: int32 (O,).
        zero_point: Of the input.

    Returns:
        Weights int8 (O / 16, KH, steps, 16, 64) and the bias with the zero point folded in.
    """
    o, kh, kw, c = weight.shape
    runs = weight.reshape(o, kh, kw * c)
    runs = np.pad(runs, ((0, 0), (0, 0), (0, -runs.shape[2] % _STEPS)))
    # A row of a tile of weights holds four steps of the run for each of sixteen channels.
    packed = runs.reshape(o // _LANES, _LANES, kh, -1, _ROWS, 4).transpose(0, 2, 3, 4, 1, 5)
    folded = bias.astype(np.int64) - (zero_point + _OFFSET) * weight.astype(np.int64).sum((1, 2, 3))
    return np.ascontiguousarray(packed.reshape(*packed.shape[:4], -1)), folded.astype(np.int32)


def x86_tile_conv2d(operands: list[relax.Expr], attrs: Any, kernel: tuple[int, int], forms: dict[str, bool]) -> relax.Call:
    """The operator.

    Args:
        operands: The input, int8 (1, H, W, C); both from `pack_tiles`; multiplier and shift, int32 (O,).
        attrs: Of the `qconv2d` that it stands for.
        kernel: Rows, columns.
        forms: `short_forms`.
    """
    return packed_call(_TILES, operands, attrs, kernel=kernel, forms=forms)


def _infer(call: relax.Call) -> relax.TensorType:
    n, *size, _ = static_shape(call.args[0])
    blocks = static_shape(call.args[1])[0]
    return tensor_type((n, *output_sizes(call, size, call.attrs.kernel), blocks * _LANES), "int8")


def _shape(call: relax.Call) -> Shape:
    attrs = call.attrs
    _, h, w, c = static_shape(call.args[0])
    top, left, bottom, right = (int(pad) for pad in attrs.padding)
    _, rows, columns, outputs = (int(dim) for dim in _infer(call).shape)
    return Shape(
        (h, w),
        c,
        (rows, columns),
        outputs,
        (int(attrs.kernel[0]), int(attrs.kernel[1])),
        (int(attrs.strides[0]), int(attrs.strides[1])),
        (top, left, bottom, right),
    )


def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """A call of the function."""
    function = tile_function(_shape(call), call.attrs)
    made = builder.add_func(function, "x86_tile_conv2d")
    return relax.call_tir(made, list(call.args), out_ty=_infer(call))


def tile_function(shape: Shape, attrs: Any) -> tirx.PrimFunc:
    """The function: (input, weights, bias, multiplier, shift, result).

    Args:
        shape: The layer's sizes.
        attrs: Zero points, limits and rounding, as of `x86_tile_conv2d`.
    """
    border = int(attrs.input_zero_point) + _OFFSET
    top, left, bottom, right = shape.padding
    rows, width = shape.size[0] + top + bottom, (shape.size[1] + left + right) * shape.channels
    pitch = width + shape.steps * _STEPS - shape.run
    outputs = shape.outputs
    with IRBuilder() as ib, T.prim_func(s_tir=True):
        T.func_name("x86_tile_conv2d")
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, "op_pattern": OPAQUE})
        x = T.arg("x", T.Buffer((1, *shape.size, shape.channels), "int8"))
        weight = T.arg("weight", T.Buffer((shape.blocks, shape.kernel[0], shape.steps, _ROWS, _STEPS), "int8"))
        vectors = [T.arg(name, T.Buffer((outputs,), "int32")) for name in ("bias", "multiplier", "shift")]
        result = T.arg("result", T.Buffer((1, *shape.result, outputs), "int8"))
        with T.sblock("root"):
            padded = T.sblock_alloc_buffer((rows, pitch), "uint8")
            _fill(padded, x, shape, border)
            _multiply(padded, weight, vectors, result, shape, attrs)
    return ib.get()


def _fill(padded: Any, x: Any, shape: Shape, border: int) -> None:
    """The input with its border, as unsigned bytes."""
    top, left, _, _ = shape.padding
    rows, pitch = (int(dim) for dim in padded.shape)
    h, w, c = *shape.size, shape.channels
    first, last = left * c, (left + w) * c
    filler = tirx.const(border, "uint8")

    def fill(row: Any, start: int, end: int) -> None:
        if end > start:
            with T.serial(0, end - start) as j:
                T.buffer_store(padded, filler, [row, start + j])

    for start, end in ((0, top), (top + h, rows)):
        if end > start:
            with T.serial(0, end - start) as i:
                fill(start + i, 0, pitch)
    with T.serial(0, h) as i:
        fill(top + i, 0, first)
        with T.serial(0, w) as j, T.serial(0, c) as k:
            value = tirx.bitwise_xor(x[0, i, j, k].astype("uint8"), tirx.const(0x80, "uint8"))
            T.buffer_store(padded, value, [top + i, first + j * c + k])
        fill(top + i, last, pitch)


def _multiply(padded: Any, weight: Any, vectors: list[Any], result: Any, shape: Shape, attrs: Any) -> None:
    across = min(2, shape.blocks)
    tiles = shape.result[0] * shape.tiles_in_row
    down = min(2, tiles)
    groups, columns = -(-tiles // down), -(-shape.blocks // across)
    by_channels = int(np.prod([int(dim) for dim in weight.shape])) > _SECOND_CACHE
    outer, inner = (columns, groups) if by_channels else (groups, columns)
    share = outer
    if shape.products >= _PARALLEL_PRODUCTS:
        share = max(count for count in range(1, max(1, outer // _SHARES) + 1) if outer % count == 0)
    loop = T.parallel if share < outer else T.serial
    with loop(0, outer // share) as piece, T.sblock("piece"):
        T.reads()
        T.writes()
        settings = T.sblock_alloc_buffer((64,), "uint8")
        sums = T.sblock_alloc_buffer((down * across, _ROWS, _LANES), "int32")
        _configure(settings, shape.positions, down, across)
        with T.serial(0, share) as step, T.serial(0, inner) as other:
            place = piece * share + step
            group, column = (other, place) if by_channels else (place, other)
            tile = tirx.min(group * down, tirx.const(tiles - down, "int32"))
            block = tirx.min(column * across, tirx.const(shape.blocks - across, "int32"))
            spots = [_spot(tile + index, shape) for index in range(down)]
            _sum(padded, weight, vectors[0], sums, spots, block, across, shape)
            for index, (row, start) in enumerate(spots):
                _store(sums, index * across, vectors, result, row, start, block, across, shape.positions, attrs)
        _amx("tilerelease")


def _spot(tile: Any, shape: Shape) -> tuple[Any, Any]:
    """Row and first position of a tile."""
    if shape.tiles_in_row == 1:
        return tile, tirx.const(0, "int32")
    row, place = tirx.floordiv(tile, shape.tiles_in_row), tirx.floormod(tile, shape.tiles_in_row)
    return row, tirx.min(place * shape.positions, tirx.const(shape.result[1] - shape.positions, "int32"))


def _sum(padded: Any, weight: Any, bias: Any, sums: Any, spots: list[Any], block: Any, across: int, shape: Shape) -> None:
    """The products of a kernel, for all tiles at a time: first those of sums, then those of inputs, then those of weights."""
    down = len(spots)
    sources, factors = down * across, down * across + down
    for m in range(down):
        for n in range(across):
            # Rows no bytes apart: each of them is the bias.
            _amx("tileloadd64", tirx.const(m * across + n, "uint8"), T.address_of(bias[(block + n) * _LANES]), _bytes(0))
    stride = shape.strides[1] * shape.channels
    with T.serial(0, shape.kernel[0]) as i, T.serial(0, shape.steps) as part:
        for m, (row, start) in enumerate(spots):
            address = padded[row * shape.strides[0] + i, start * stride + part * _STEPS]
            _amx("tileloadd64", tirx.const(sources + m, "uint8"), T.address_of(address), _bytes(stride))
        for n in range(across):
            address = weight[block + n, i, part, 0, 0]
            _amx("tileloadd64", tirx.const(factors + n, "uint8"), T.address_of(address), _bytes(_STEPS))
        for m in range(down):
            for n in range(across):
                _amx("tdpbusd", *(tirx.const(t, "uint8") for t in (m * across + n, sources + m, factors + n)))
    for index in range(down * across):
        _amx("tilestored64", tirx.const(index, "uint8"), T.address_of(sums[index, 0, 0]), _bytes(4 * _LANES))


def _store(
    sums: Any,
    first: int,
    vectors: list[Any],
    result: Any,
    row: Any,
    start: Any,
    block: Any,
    across: int,
    count: int,
    attrs: Any,
) -> None:
    """Requantize the tiles of one spot."""
    _, multiplier, shift = vectors
    with T.serial(0, count) as position:
        for n in range(across):
            with T.vectorized(0, _LANES) as lane:
                channel = (block + n) * _LANES + lane
                value = requantized_element(sums[first + n, position, lane], multiplier[channel], shift[channel], attrs)
                T.buffer_store(result, value, [0, row, start + position, channel])


def _configure(settings: Any, positions: int, down: int, across: int) -> None:
    """Which rows and bytes the tiles have."""
    counts = [positions] * (down * across + down) + [_ROWS] * across
    values = np.zeros(64, np.uint8)
    values[0] = 1
    values.view(np.uint16)[8 : 8 + len(counts)] = _STEPS
    values[48 : 48 + len(counts)] = counts
    for index, value in enumerate(values):
        T.buffer_store(settings, tirx.const(int(value), "uint8"), [index])
    _amx("ldtilecfg", T.address_of(settings[0]))


def _amx(name: str, *arguments: Any) -> None:
    T.evaluate(tirx.call_llvm_intrin("void", f"llvm.x86.{name}", *arguments))


def _bytes(count: int) -> Any:
    return tirx.const(count, "int64")


def _define(call: relax.Call, *tensors: Any) -> Any:
    raise NotImplementedError("x86_tile_conv2d has no tensor expression; lower it by `legalize`")


_TILES = register_operator("x86_tile_conv2d", 5, "Integer convolution on AMX tiles", _infer, _define)
