"""Depthwise convolution: sixteen or eight channels at a time, which lie side by side in NHWC.

SMULL and SMLAL give products of bytes as halfwords; taps are grouped such that the sum of a group's products fits a halfword
for every input, which is proven from the weights, so that only one sum a group is widened (SADDW). Any two taps make a group
at least, unless both weights are -128.

With fewer than sixteen channels, when they divide sixteen, a vector holds neighbouring pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR, load_words
from .epilogue import Epilogue
from .neon import high, low, smull
from .padded import PaddedRows

# mypy: ignore-errors

_BAND_BYTES = 16384


@dataclass(frozen=True)
class DepthwiseKernel:
    """A depthwise convolution, one output channel a channel.

    Attributes:
        shape: Its shape.
        epilogue: How accumulators become outputs.
        groups: Numbers of the taps whose products are summed as halfwords.
        pixels: Places of a row that are made at a time.
    """

    shape: ConvolutionShape
    epilogue: Epilogue
    groups: tuple[tuple[int, ...], ...]
    pixels: int = 2

    @property
    def fits(self) -> bool:
        """Whether the template can compute it."""
        return self.packed or self.shape.channels >= 8

    @cached_property
    def packed(self) -> bool:
        """Whether a vector holds several pixels."""
        s = self.shape
        return s.channels < VECTOR and VECTOR % s.channels == 0 and s.strides[1] == 1 and s.out_width * s.channels >= VECTOR

    @property
    def lanes(self) -> int:
        """Channels of a vector."""
        return VECTOR if self.packed or self.shape.channels >= VECTOR else 8

    @cached_property
    def starts(self) -> list[int]:
        """The first channel of each block; the last one may overlap the one before."""
        channels, lanes = self.shape.channels, self.lanes
        return [0] if self.packed else [min(start, channels - lanes) for start in range(0, channels, lanes)]

    @property
    def taps(self) -> int:
        """Taps of the kernel."""
        return self.shape.kernel[0] * self.shape.kernel[1]

    @cached_property
    def rows(self) -> int:
        """Output rows made from one band."""
        s = self.shape

        def fits(rows: int) -> bool:
            return PaddedRows(s, rows).nbytes <= _BAND_BYTES

        most = max(rows for rows in range(1, s.out_height + 1) if rows == 1 or fits(rows))
        return -(-s.out_height // -(-s.out_height // most))

    @cached_property
    def band(self) -> PaddedRows:
        """The band."""
        return PaddedRows(self.shape, self.rows)

    def _channels(self, start: int) -> np.ndarray:
        return np.arange(self.lanes) % self.shape.channels if self.packed else start + np.arange(self.lanes)

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """(T, C) int8 as they are read: flat int8."""
        return np.concatenate([weights[:, self._channels(start)].ravel() for start in self.starts])

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The biases, then each word of the epilogue, by block: flat int32."""
        rows = np.concatenate([bias[None].astype(np.int32), self.epilogue.parameters(multiplier, shift)])
        return np.concatenate([rows[:, self._channels(start)].ravel() for start in self.starts])

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, output), all flat."""
        return _build(self)


def _build(k: DepthwiseKernel) -> tirx.PrimFunc:
    s, ep, L, TAPS, NB = k.shape, k.epilogue, k.lanes, k.taps, len(k.starts)
    H, W, C, OH, OW, (SH, SW), KW = s.height, s.width, s.channels, s.out_height, s.out_width, s.strides, s.kernel[1]
    ROWS, PITCH, PACKED = k.rows, k.band.pitch, k.packed
    BANDS = -(-OH // ROWS)
    # Places of a row: vectors where they hold several pixels.
    M = -(-OW * C // VECTOR) if PACKED else OW
    P = min(k.pixels, M)
    Q = L // 4
    PW = L * (1 + ep.words)

    def accumulate(band, w, q, halves, acc, at, block):
        """Statements that leave the sums of a place in `acc`."""
        for j in range(Q):
            T.buffer_store(acc, load_words(q, block * PW + 4 * j), [j])
        for group in k.groups:
            for index, tap in enumerate(group):
                x = band.vload([at + (tap // KW * PITCH + tap % KW * C)], f"int8x{L}")
                weight = w.vload([(block * TAPS + tap) * L], f"int8x{L}")
                for side in range(L // 8):
                    half = (high if side else low) if L == VECTOR else lambda value, _: value
                    value = smull(half(x, 8), half(weight, 8))
                    T.buffer_store(halves, halves[side] + value if index else value, [side])
            for j in range(Q):
                part = (high if j % 2 else low)(halves[j // 2], 4)
                T.buffer_store(acc, acc[j] + part.astype("int32x4"), [j])

    def finish(q, acc, result, p, block):
        for j in range(Q):
            factors = [load_words(q, block * PW + (1 + i) * L + 4 * j) for i in range(ep.words)]
            T.buffer_store(result, ep.scaled(acc[j], factors), [p * Q + j])

    def place(index, p):
        """The place `p` of a tile: the last tile overlaps the one before."""
        first = index * P if M % P == 0 else T.min(index * P, M - P)
        return first + p

    def inside(at, block):
        """Bytes from the start of a row of pixels at distance 1 to a place."""
        if PACKED:
            return T.min(at * VECTOR, OW * C - VECTOR) if OW * C % VECTOR else at * VECTOR
        return at * C + (T.min(block * L, C - L) if C % L else block * L)

    def source(at, block):
        return inside(at, block) if PACKED else at * (SW * C) + (inside(at, block) - at * C)

    @T.prim_func(s_tir=True)
    def depthwise(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((NB * TAPS * L,), "int8"),
        q: T.Buffer((NB * PW,), "int32"),
        out: T.Buffer((OH * OW * C,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        band = T.alloc_buffer((k.band.nbytes,), "int8")
        halves = T.alloc_buffer((2,), "int16x8", scope="local")
        acc = T.alloc_buffer((Q,), "int32x4", scope="local")
        result = T.alloc_buffer((P * Q,), "int32x4", scope="local")
        for b in range(BANDS):
            k.band.fill(x, band, T.min(b * ROWS, OH - ROWS))
            for block in range(NB):
                for row in range(ROWS):
                    for tile in range(-(-M // P)):
                        for p in T.unroll(P):
                            accumulate(band, w, q, halves, acc, row * (SH * PITCH) + source(place(tile, p), block), block)
                            finish(q, acc, result, p, block)
                        for p in T.unroll(P):
                            out[
                                T.ramp((T.min(b * ROWS, OH - ROWS) + row) * (OW * C) + inside(place(tile, p), block), 1, L)
                            ] = ep.bytes([result[p * Q + j] for j in range(Q)])

    return depthwise.with_attr("tvmcompress.workspaces", {"band": k.band.nbytes})
