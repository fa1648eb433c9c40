"""Depthwise convolution with Helium.

Sixteen channels at a time, which lie side by side in NHWC. VMULLB and VMULLT give products of bytes as halfwords, those
of even and of odd channels; taps are grouped such that the sum of a group's products fits a halfword for every input,
which is proven from the weights, so that only one sum a group is widened. Any two taps make a group at least.

With fewer than sixteen channels, when they divide sixteen, a vector holds neighbouring pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.band import HEAD, Band
from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR, as_bytes, load_words
from .helium_epilogue import HeliumEpilogue
from .helium_words import narrowed, vmull, widened

# mypy: ignore-errors

LANES = np.array([[0, 4, 8, 12], [2, 6, 10, 14], [1, 5, 9, 13], [3, 7, 11, 15]])
"""The channels of the four vectors of sums: even and odd halfwords of even and of odd bytes."""


@dataclass(frozen=True)
class HeliumDepthwise(ConvolutionShape):
    """The shape of a depthwise convolution with one output channel a channel.

    Attributes:
        epilogue: How accumulators become outputs.
        groups: Numbers of the taps whose products are summed as halfwords.
        rows: Output rows made from one band; divides the output's rows.
    """

    epilogue: HeliumEpilogue
    groups: tuple[tuple[int, ...], ...]
    rows: int

    @property
    def fits(self) -> bool:
        """Whether the template can compute it."""
        if self.channels % 4:
            return False
        if self.channels >= VECTOR:
            return True
        return VECTOR % self.channels == 0 and self.strides[1] == 1 and self.out_width * self.channels >= VECTOR

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def packed(self) -> bool:
        """Whether a vector holds several pixels."""
        return self.channels < VECTOR

    @property
    def blocks(self) -> int:
        """Vectors that cover the channels; the last one may overlap the one before."""
        return -(-self.channels // VECTOR)

    @property
    def band(self) -> Band:
        """The band."""
        return self.band_of(self.rows)

    @property
    def block_words(self) -> int:
        """Words of the constants of a block."""
        return 4 * self.taps + 16 * (1 + self.epilogue.words)

    def channels_of(self, block: int) -> np.ndarray:
        """The channels in the lanes of a block."""
        if self.packed:
            return np.arange(VECTOR) % self.channels
        return min(block * VECTOR, self.channels - VECTOR) + np.arange(VECTOR)


def pack_constants(
    layer: HeliumDepthwise, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """Per block the taps of (T, C) int8 weights, then for each vector of sums the bias and the epilogue's words.

    Returns:
        Flat int32, behind the number of blocks: LLVM would keep constants in registers and spill them if it knew that.
    """
    rows = np.concatenate([bias.astype(np.int32)[None], layer.epilogue.parameters(multiplier, shift)])
    parts = [layer.band.counts, np.array([layer.blocks], np.int32)]
    for block in range(layer.blocks):
        channels = layer.channels_of(block)
        parts.append(np.ascontiguousarray(weights[:, channels]).view(np.int32).ravel())
        parts.append(rows[:, channels][:, LANES].transpose(1, 0, 2).ravel())
    return np.concatenate(parts)


def depthwise(layer: HeliumDepthwise) -> tirx.PrimFunc:
    """The function of (input, constants, input, constants, output), all flat.

    To LLVM the second pointer to the constants is a different one. Weights are read through both: kept in a register
    from the products of even channels to those of odd ones, they would cost spilling a sum.
    """
    H, W, C, OH, OW = layer.height, layer.width, layer.channels, layer.out_height, layer.out_width
    (SH, SW), KW = layer.strides, layer.kernel[1]
    ep, NB, BW, TAPS = layer.epilogue, layer.blocks, layer.block_words, layer.taps
    shape, ROWS = layer.band, layer.rows
    PITCH = shape.pitch
    START = HEAD + 1
    BANDS = OH // ROWS
    PACKED = layer.packed
    # Positions of a row; a position is a vector where that holds several pixels.
    M = -(-OW * C // VECTOR) if PACKED else OW

    def place(p, cb):
        """Offset of a vector in a row of the output."""
        if PACKED:
            return T.min(p * VECTOR, OW * C - VECTOR) if OW * C % VECTOR else p * VECTOR
        return p * C + (T.min(cb * VECTOR, C - VECTOR) if C % VECTOR else cb * VECTOR)

    def start(row, p, cb):
        """Offset of a vector's first tap in the band, in words."""
        across = place(p, cb) if PACKED or SW == 1 else place(p * SW, cb)
        return row * (SH * PITCH // 4) + across // 4

    def product(band, constants, row, p, cb, tap, top):
        offset = tap // KW * (PITCH // 4) + tap % KW * (C // 4)
        return vmull(
            as_bytes(load_words(band, start(row, p, cb) + offset)),
            as_bytes(load_words(constants, START + cb * BW + tap * 4)),
            top,
        )

    def accumulate(band, constants, again, halves, acc, row, p, cb):
        """Statements that leave the sums in `acc`."""
        for j in range(4):
            T.buffer_store(acc, load_words(constants, START + cb * BW + TAPS * 4 + j * 4 * (1 + ep.words)), [j])
        for group in layer.groups:
            for top in range(2):
                for index, tap in enumerate(group):
                    value = product(band, again if top else constants, row, p, cb, tap, top)
                    T.buffer_store(halves, halves[top] + value if index else value, [top])
            for j in range(4):
                T.buffer_store(acc, acc[j] + widened(halves[j // 2], j % 2), [j])

    def finish(constants, acc, cb):
        values = []
        for j in range(4):
            base = START + cb * BW + TAPS * 4 + j * 4 * (1 + ep.words)
            values.append(ep.scaled(acc[j], [load_words(constants, base + 4 * (1 + i)) for i in range(ep.words)]))
        result = narrowed(*values)
        if ep.qmin > -128:
            result = tirx.max(result, tirx.Broadcast(tirx.const(ep.qmin, "int8"), VECTOR))
        if ep.qmax < 127:
            result = tirx.min(result, tirx.Broadcast(tirx.const(ep.qmax, "int8"), VECTOR))
        return result

    @T.prim_func(s_tir=True)
    def depthwise_int8(
        x: T.Buffer((H * W * C,), "int8"),
        constants: T.Buffer((START + NB * BW,), "int32"),
        unread: T.Buffer((H * W * C,), "int8"),
        again: T.Buffer((START + NB * BW,), "int32"),
        out: T.Buffer((OH * OW * C,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        band = T.alloc_buffer((shape.elements,), "int32")
        acc = T.alloc_buffer((4,), "int32x4")
        halves = T.alloc_buffer((2,), "int16x8")
        shape.clear(band, constants)
        for b in range(BANDS):
            shape.fill(x, band, b, constants)
            for row in range(ROWS):
                for p in range(M):
                    for cb in range(constants[HEAD]):
                        accumulate(band, constants, again, halves, acc, row, p, cb)
                        out[T.ramp((b * ROWS + row) * (OW * C) + place(p, cb), 1, VECTOR)] = finish(constants, acc, cb)

    depthwise_int8 = depthwise_int8.with_attr("tvmcompress.workspaces", {"band": shape.bytes})
    inplace = (H, W) == (OH, OW) and layer.strides == (1, 1) and shape.reads_once
    return depthwise_int8.with_attr("tvmcompress.inplace", 0) if inplace else depthwise_int8
