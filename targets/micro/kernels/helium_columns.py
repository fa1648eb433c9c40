"""Depthwise 3x3 convolution of stride 1 with Helium, by sums of products along columns.

Four rows of the input are interleaved byte by byte (VST4), so that a word holds four rows of one channel and one column. The
words of four columns are gathered to a vector: it has all that two by two outputs of a channel are made of. Four sets of the
channel's weights, zero where an output does not reach, give them by one VMLADAV each:

    rows 0 to 3, columns 0 to 3:    y00 of rows 0 to 2 and columns 0 to 2    y01 one column further
                                    y10 one row further                     y11 both

The two last rows are kept aside for the next four, so outputs may lie where inputs lay. Where the number of output rows is odd,
the first pair of rows starts one above the output; what belongs there is written where the next pair is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR, as_bytes, as_words, i32, load_bytes, load_words, splat
from .helium_epilogue import HeliumEpilogue
from .helium_words import gather_words, narrowed_words, scatter_bytes, store_interleaved, vector, vmladava, vrshl

# mypy: ignore-errors

_HEAD = 24
"""Words before those of the channels: trip counts and padding, offsets of four columns, of the first four outputs, of others,
masks of the weights of an output and of one further to the right."""
_CHANNEL = 5
"""Words of a channel: weights by column, bias, factor. The shift is the last byte of the weights."""
_UNROLLED = 2
"""Steps of a row that need no loop."""
_UNROLLED = 2
"""Steps of a row that need no loop."""
_PARAMETERS = 3
"""Words of a channel behind those of all channels' weights: bias, factor and shift."""


@dataclass(frozen=True)
class HeliumColumns(ConvolutionShape):
    """The shape of a depthwise 3x3 convolution of stride 1 with one output channel a channel.

    Attributes:
        epilogue: How accumulators become outputs.
    """

    epilogue: HeliumEpilogue

    @property
    def fits(self) -> bool:
        """Whether the template can compute it."""
        small = self.kernel == (3, 3) and self.strides == (1, 1) and max(self.top, self.left) <= 1
        row = self.width * self.channels
        return small and row % VECTOR == 0 and self.channels % 4 == 0 and self.out_height > 2 and self.out_width > 1

    @property
    def above(self) -> int:
        """Rows above the output in the first pair."""
        return self.out_height % 2

    @property
    def row_words(self) -> int:
        """Words of four interleaved rows."""
        return max(self.out_width + 2, self.left + self.width) * self.channels

    @property
    def workspaces(self) -> dict[str, int]:
        """Bytes of the workspaces by name."""
        return {"quads": 4 * self.row_words, "kept": 2 * self.width * self.channels}


def pack_constants(
    layer: HeliumColumns, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """What the function needs.

    Args:
        layer: The layer.
        weights: (9, C) int8.
        bias, multiplier, shift: (C,) int32.

    Returns:
        Flat int32: the head, then the channels.
    """
    columns = np.zeros((layer.channels, 3, 4), np.int8)
    columns[:, :, :3] = weights.reshape(3, 3, -1).transpose(2, 1, 0)
    # VRSHL shifts to the right by what is negative.
    columns[:, 2, 3] = np.clip(shift, -31, -1)
    factors = layer.epilogue.parameters(multiplier, shift)[0]
    words = np.concatenate([columns.view(np.int32)[..., 0], np.stack([bias, factors], axis=1)], axis=1).astype(np.int32)
    step, row = layer.channels, layer.out_width * layer.channels
    zero = (layer.input_zero_point & 0xFF) * 0x01010101
    head = np.array([layer.width * layer.channels // VECTOR, layer.channels, zero, 0], np.int64).astype(np.int32)
    usual = np.array([0, step, row, row + step], np.int32)
    first = np.array([row, row + step, 0, step], np.int32) if layer.above else usual
    masks = np.array([0xFFFFFF] * 3 + [0, 0] + [0xFFFFFF] * 3, np.int32)
    return np.concatenate([head, step * np.arange(4, dtype=np.int32), first, usual, masks, words.ravel()])


def depthwise(layer: HeliumColumns) -> tirx.PrimFunc:
    """The function of (input, constants, input, constants, output), all flat; the second two are not read."""
    H, W, C, OH, OW = layer.height, layer.width, layer.channels, layer.out_height, layer.out_width
    ABOVE, PAIRS = layer.above, (OH + layer.above) // 2
    ROW, L = W * C, layer.row_words
    ep = layer.epilogue
    STEPS = -(-OW // 2)
    TOTAL = _HEAD + C * _CHANNEL
    RIGHT = L - (layer.left + W) * C

    def padding(constants):
        return as_bytes(tirx.Broadcast(constants[2], 4))

    def keep_first(x, constants, kept):
        """Statements that keep the two rows that the first pair starts with."""
        for r in range(2):
            row = r - ABOVE - layer.top
            with T.serial(constants[0]) as i:
                value = load_bytes(x, row * ROW + i * VECTOR) if row >= 0 else padding(constants)
                T.buffer_store(kept, as_words(value), [tirx.Ramp((r * ROW + i * VECTOR) // 4, i32(1), 4)])

    def pad(constants, quads):
        """Statements that fill the columns beside the input."""
        for start, words in ((0, layer.left * C), (L - RIGHT, RIGHT)):
            if words:
                with T.serial(words // 4) as i:
                    T.buffer_store(quads, tirx.Broadcast(constants[2], 4), [tirx.Ramp(start + i * 4, i32(1), 4)])

    def interleave(x, constants, kept, quads, rows, pair):
        """Statements that interleave the rows of a pair."""
        row = pair * 2 - ABOVE - layer.top + 2
        with T.serial(constants[0]) as i:
            for r in range(2):
                fresh = T.if_then_else(row + r < H, load_bytes(x, (row + r) * ROW + i * VECTOR), padding(constants))
                T.buffer_store(rows, as_bytes(load_words(kept, (r * ROW + i * VECTOR) // 4)), [r])
                T.buffer_store(rows, fresh, [2 + r])
            for r in range(2):
                T.buffer_store(kept, as_words(rows[2 + r]), [tirx.Ramp((r * ROW + i * VECTOR) // 4, i32(1), 4)])
            store_interleaved(quads, layer.left * C + i * VECTOR, [rows[r] for r in range(4)])

    def load(constants, weights, offsets, parameters, c):
        """Statements that load what a channel needs into registers."""
        base = _HEAD + c * _CHANNEL
        for dx in range(2):
            words = load_words(constants, base - dx) & load_words(constants, 16 + 4 * dx)
            T.buffer_store(weights, as_bytes(words), [dx])
            T.buffer_store(weights, as_bytes(as_words(weights[dx]) << splat(8)), [2 + dx])
        for i in range(2):
            T.buffer_store(parameters, constants[base + 3 + i], [i])
        T.buffer_store(parameters, constants[base + 2] >> i32(24), [2])
        T.buffer_store(offsets, load_words(constants, 4), [0])

    def outputs(constants, quads, weights, acc, offsets, parameters, out, pair, c):
        """Statements that make the outputs of a channel in a pair of rows."""
        T.buffer_store(offsets, load_words(constants, T.if_then_else(pair == 0, 8, 12) if ABOVE else 12), [1])
        start = T.max(pair * 2 - ABOVE, 0)
        if STEPS <= _UNROLLED:
            for i in range(STEPS):
                four(quads, weights, acc, offsets, parameters, out, start, min(2 * i, OW - 2), c)
        else:
            with T.serial(STEPS) as i:
                column = T.min(2 * i, OW - 2) if OW % 2 else 2 * i
                four(quads, weights, acc, offsets, parameters, out, start, column, c)

    def four(quads, weights, acc, offsets, parameters, out, start, column, c):
        """Statements that make two by two outputs."""
        T.buffer_store(acc, as_bytes(gather_words(quads, column * C + c, offsets[0])), [0])
        sums = vector(*[vmladava(i32(0), acc[0], weights[j]) for j in range(4)])
        high = ep.high(sums + tirx.Broadcast(parameters[0], 4), tirx.Broadcast(parameters[1], 4))
        value = vrshl(high, parameters[2]) + splat(ep.zero_point)
        if ep.qmin > -128:
            value = tirx.max(value, splat(ep.qmin))
        if ep.qmax < 127:
            value = tirx.min(value, splat(ep.qmax))
        scatter_bytes(out, (start * OW + column) * C + c, offsets[1], narrowed_words(value))

    @T.prim_func(s_tir=True)
    def depthwise_int8(
        x: T.Buffer((H * W * C,), "int8"),
        constants: T.Buffer((TOTAL,), "int32"),
        unread: T.Buffer((H * W * C,), "int8"),
        again: T.Buffer((TOTAL,), "int32"),
        out: T.Buffer((OH * OW * C,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        quads = T.alloc_buffer((L,), "int32")
        kept = T.alloc_buffer((2 * ROW // 4,), "int32")
        rows = T.alloc_buffer((4,), "int8x16")
        weights = T.alloc_buffer((4,), "int8x16")
        acc = T.alloc_buffer((1,), "int8x16")
        offsets = T.alloc_buffer((2,), "int32x4")
        parameters = T.alloc_buffer((3,), "int32")
        pad(constants, quads)
        keep_first(x, constants, kept)
        for pair in range(PAIRS):
            interleave(x, constants, kept, quads, rows, pair)
            for c in range(constants[1]):
                load(constants, weights, offsets, parameters, c)
                outputs(constants, quads, weights, acc, offsets, parameters, out, pair, c)

    depthwise_int8 = depthwise_int8.with_attr("tvmcompress.workspaces", layer.workspaces)
    return depthwise_int8.with_attr("tvmcompress.inplace", 0) if (H, W) == (OH, OW) else depthwise_int8
