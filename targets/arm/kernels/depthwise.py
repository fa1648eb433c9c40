"""Depthwise convolution: sixteen or eight channels at a time, which lie side by side in NHWC.

With fewer than sixteen channels, when they divide sixteen, a vector holds neighbouring pixels. What multiplies depends on the
core:

- `HalfwordTaps` (Armv8.0): SMULL and SMLAL give products of bytes as halfwords; taps are grouped such that the sum of a group's
  products fits a halfword for every input, which is proven from the weights, so that only one sum a group is widened (SADDW).
  Any two taps make a group at least, unless both weights are -128.
- `DotTaps` (Armv8.2): the bytes of four rows of the kernel are interleaved, so that SDOT multiplies a column of it, for four
  channels. What is interleaved serves all outputs whose fields overlap there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, i32, load_words
from .epilogue import Epilogue
from .neon import high, low, sdot, shuffled, smull, tbl3, woven
from .padded import PaddedRows

# mypy: ignore-errors

_BAND_BYTES = 16384

Vectors = list["tirx.PrimExpr"]
Weights = Callable[[int, int], "tirx.PrimExpr"]
"""The weights at an offset in those of a block, so many."""


@dataclass(frozen=True)
class HalfwordTaps:
    """Products of taps as halfwords.

    Attributes:
        groups: Numbers of the taps whose products are summed as halfwords.
    """

    groups: tuple[tuple[int, ...], ...]

    def longest(self, apart: bool) -> int:
        """The most places of a tile; measured: more of them share more, until LLVM spills.

        Args:
            apart: Whether neighbouring places do not read the same vectors.
        """
        return 4

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """The weights (KH, KW, lanes) of a block as they are read: flat int8."""
        return weights.ravel()

    def fits(self, lanes: int) -> bool:
        """Whether vectors may have so many channels."""
        return True

    def buffers(self, lanes: int, places: int, kernel: tuple[int, int]) -> list[tuple[int, str]]:
        """Lengths and dtypes of the local buffers."""
        return [(2, "int16x8")]

    def accumulate(self, source: Source, w: Weights, acc: tirx.Buffer, local: list[tirx.Buffer], place: int) -> None:
        """Statements that add the products of a place to the sums of its channels."""
        (halves,), width = local, source.kernel[1]
        lanes = 4 * int(acc.shape[0])
        for group in self.groups:
            for index, tap in enumerate(group):
                x, weight = source.load(place, *divmod(tap, width)), w(tap * lanes, lanes)
                for side in range(lanes // 8):
                    half = (high if side else low) if lanes == VECTOR else _whole
                    value = smull(half(x, 8), half(weight, 8))
                    T.buffer_store(halves, halves[side] + value if index else value, [side])
            for j in range(lanes // 4):
                part = (high if j % 2 else low)(halves[j // 2], 4)
                T.buffer_store(acc, acc[j] + part.astype("int32x4"), [j])


@dataclass(frozen=True)
class DotTaps:
    """Columns of four taps by SDOT."""

    def longest(self, apart: bool) -> int:
        """As of `HalfwordTaps`."""
        return 3 if apart else 6

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """As of `HalfwordTaps`: by four rows, column and four channels, the rows of a channel behind one another."""
        height, width, lanes = weights.shape
        padded = np.pad(weights, ((0, -height % 4), (0, 0), (0, 0)))
        return padded.reshape(-1, 4, width, lanes // 4, 4).transpose(0, 2, 3, 4, 1).ravel()

    def fits(self, lanes: int) -> bool:
        """As of `HalfwordTaps`."""
        return lanes == VECTOR

    def buffers(self, lanes: int, places: int, kernel: tuple[int, int]) -> list[tuple[int, str]]:
        """As of `HalfwordTaps`."""
        return [(4 * places * kernel[0] * kernel[1], "int8x16")]

    def accumulate(self, source: Source, w: Weights, acc: tirx.Buffer, local: list[tirx.Buffer], place: int) -> None:
        """As of `HalfwordTaps`."""
        (columns,), (height, width) = local, source.kernel
        for group in range(-(-height // 4)):
            rows = range(4 * group, min(4 * group + 4, height))
            for column in range(width):
                for j in range(4):
                    vector, quarter = source.quad(place, column, j)
                    index, fresh = source.slot(group, vector)
                    if fresh:
                        self._weave([source.load_vector(vector, row) for row in rows], columns, 4 * index)
                    weight = w(((group * width + column) * 4 + j) * VECTOR, VECTOR)
                    T.buffer_store(acc, sdot(acc[j], columns[4 * index + quarter], weight), [j])

    def _weave(self, rows: Vectors, columns: tirx.Buffer, at: int) -> None:
        """Stores the bytes of up to four rows, interleaved; rows that lack are multiplied by zero."""
        if len(rows) == 3:
            for j in range(4):
                T.buffer_store(columns, tbl3(rows, [i % 4 * VECTOR + 4 * j + i // 4 for i in range(VECTOR)]), [at + j])
            return
        for j, value in enumerate(woven([*rows, *[rows[-1]] * (4 - len(rows))])):
            T.buffer_store(columns, value, [at + j])


def _whole(vector: tirx.PrimExpr, lanes: int) -> tirx.PrimExpr:
    return vector


class Source:
    """The bytes of a tile in the padded rows.

    Args:
        kernel: The layer and its plan.
        band: The rows.
        places: Offsets of the places of a tile.
    """

    def __init__(self, kernel: DepthwiseKernel, band: tirx.Buffer, places: list[tirx.PrimExpr]) -> None:
        self._k, self._band, self._places = kernel, band, places
        self.kernel = kernel.shape.kernel
        self._slots: dict[tuple, int] = {}

    def load(self, place: int, row: int, column: int) -> tirx.PrimExpr:
        """The bytes of a place that a tap multiplies."""
        at = self._places[place] + (row * self._k.band.pitch + column * self._k.shape.channels)
        return self._band.vload([at], f"int8x{self._k.lanes}")

    def quad(self, place: int, column: int, j: int) -> tuple[tuple[int, int], int]:
        """The vector that holds group `j` of four channels of a place, `column` columns to the right, and where in it."""
        k = self._k
        if not k.packed:
            # Of neighbouring places it is the same where they overlap.
            return (place * k.shape.strides[1] + column, 0), j
        group = 4 * place + column * k.shape.channels // 4 + j
        return (group // 4, 0), group % 4

    def slot(self, group: int, vector: tuple[int, int]) -> tuple[int, bool]:
        """The place of a vector among those interleaved, and whether it is a new one."""
        fresh = (group, vector) not in self._slots
        return self._slots.setdefault((group, vector), len(self._slots)), fresh

    def load_vector(self, vector: tuple[int, int], row: int) -> tirx.PrimExpr:
        """A row's bytes of a vector."""
        k = self._k
        step = VECTOR if k.packed else k.shape.channels
        return self._band.vload([self._places[0] + (row * k.band.pitch + vector[0] * step)], "int8x16")


@dataclass(frozen=True)
class DepthwiseKernel:
    """A depthwise convolution, one output channel a channel.

    Attributes:
        shape: Its shape.
        epilogue: How accumulators become outputs.
        taps: How taps are multiplied.
        threads: How many threads should find a band of their own.
    """

    shape: ConvolutionShape
    epilogue: Epilogue
    taps: HalfwordTaps | DotTaps
    threads: int = 1

    @property
    def fits(self) -> bool:
        """Whether the template can compute it."""
        return (self.packed or self.shape.channels >= 8) and self.taps.fits(self.lanes)

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
    def places(self) -> int:
        """Places of a row: vectors where they hold several pixels."""
        s = self.shape
        return -(-s.out_width * s.channels // VECTOR) if self.packed else s.out_width

    @property
    def tile(self) -> int:
        """Places that are made at a time."""
        longest = self.taps.longest(self.packed or self.shape.strides[1] > 1)
        return min(range(1, min(longest, self.places) + 1), key=lambda n: (-(-self.places // n) * n, -n))

    @property
    def copies(self) -> int:
        """Copies of the biases, one for each place: an instruction loads two vectors, and copies only one from register to
        register. It pays, measured, where a tile is a whole row or holds several pixels in a vector."""
        return self.tile if self.packed or self.tile == self.places else 1

    @cached_property
    def rows(self) -> int:
        """Output rows made from one band."""
        s = self.shape

        def fits(rows: int) -> bool:
            return PaddedRows(s, rows, 2 * VECTOR).nbytes <= _BAND_BYTES

        most = max(rows for rows in range(1, s.out_height + 1) if rows == 1 or fits(rows))
        bands = max(-(-s.out_height // most), min(self.threads, s.out_height))
        return -(-s.out_height // bands)

    @cached_property
    def band(self) -> PaddedRows:
        """The band."""
        return PaddedRows(self.shape, self.rows, 2 * VECTOR)

    def _channels(self, start: int) -> np.ndarray:
        return np.arange(self.lanes) % self.shape.channels if self.packed else start + np.arange(self.lanes)

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """(KH, KW, C) int8 as they are read: flat int8."""
        return np.concatenate([self.taps.pack(weights[:, :, self._channels(start)]) for start in self.starts])

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The biases of all places, then each word of the epilogue, by block, and the zero point at the end: flat int32."""
        biases = np.repeat(bias[None].astype(np.int32), self.copies, axis=0)
        rows = np.concatenate([biases, self.epilogue.parameters(multiplier, shift)])
        return np.concatenate([*(rows[:, self._channels(start)].ravel() for start in self.starts), self.epilogue.tail])

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, output), all flat."""
        return _build(self)


@lru_cache(maxsize=128)
def _build(k: DepthwiseKernel) -> tirx.PrimFunc:
    # Layers that differ in their constants share it: parsing it takes longer than the rest.
    s, ep, L, NB = k.shape, k.epilogue, k.lanes, len(k.starts)
    H, W, C, OH, OW, (SH, SW) = s.height, s.width, s.channels, s.out_height, s.out_width, s.strides
    ROWS, PITCH, PACKED, M, P = k.rows, k.band.pitch, k.packed, k.places, k.tile
    BANDS = -(-OH // ROWS)
    Q = L // 4
    PW = L * (k.copies + ep.words)
    WW = len(k.taps.pack(np.zeros((*s.kernel, L), np.int8)))
    PARAMETERS = NB * PW + len(ep.tail)
    LOCAL = k.taps.buffers(L, P, s.kernel)[0]

    def tile_start(index):
        """The first place of a tile: the last tile overlaps the one before."""
        return index * P if M % P == 0 else T.min(index * P, M - P)

    def channel(block):
        return T.min(block * L, C - L) if C % L else block * L

    def output(place, block):
        """Offset of a place in a row of the output."""
        return place * VECTOR if PACKED else place * C + channel(block)

    def compute(band, w, q, acc, local, result, row, tile, block):
        at = row * (SH * PITCH) + (tile_start(tile) * VECTOR if PACKED else tile_start(tile) * (SW * C) + channel(block))
        source = Source(k, band, [at + p * (VECTOR if PACKED else SW * C) for p in range(P)])

        def weight(offset, lanes):
            return w.vload([block * WW + offset], f"int8x{lanes}")

        for p in range(P):
            for j in range(Q):
                T.buffer_store(acc, load_words(q, block * PW + p % k.copies * L + 4 * j), [j])
            k.taps.accumulate(source, weight, acc, [local], p)
            values = []
            for j in range(Q):
                factors = [load_words(q, block * PW + (k.copies + i) * L + 4 * j) for i in range(ep.words)]
                values.append(ep.scaled(acc[j], factors))
            T.buffer_store(result, ep.bytes(values, ep.zero(q, NB * PW)), [p])

    def store(out, result, line, tile, block):
        for p in range(P):
            at = line * (OW * C) + output(tile_start(tile) + p, block)
            if PACKED and OW * C % VECTOR and p == P - 1:
                # The last vector of a row reaches beyond it.
                with T.If(tile_start(tile) + p < M - 1):
                    with T.Then():
                        T.buffer_store(out, result[p], [tirx.Ramp(at, i32(1), L)])
                    with T.Else():
                        store_part(out, result[p], at, OW * C % VECTOR)
            else:
                T.buffer_store(out, result[p], [tirx.Ramp(at, i32(1), L)])

    def store_part(out, value, at, count):
        done = 0
        for lanes in (8, 4, 2, 1):
            if count & lanes:
                where = tirx.Ramp(at + done, i32(1), lanes) if lanes > 1 else at + done
                T.buffer_store(out, shuffled([value], range(done, done + lanes)), [where])
                done += lanes

    @T.prim_func(s_tir=True)
    def depthwise(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((NB * WW,), "int8"),
        q: T.Buffer((PARAMETERS,), "int32"),
        out: T.Buffer((OH * OW * C,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        band = T.alloc_buffer((k.band.nbytes,), "int8")
        local = T.alloc_buffer((LOCAL[0],), LOCAL[1], scope="local")
        acc = T.alloc_buffer((Q,), "int32x4", scope="local")
        result = T.alloc_buffer((P,), f"int8x{L}", scope="local")
        for b in parallel(BANDS):
            k.band.fill(x, band, T.min(b * ROWS, OH - ROWS))
            for block in range(NB):
                for row in range(ROWS):
                    for tile in range(-(-M // P)):
                        compute(band, w, q, acc, local, result, row, tile, block)
                        store(out, result, T.min(b * ROWS, OH - ROWS) + row, tile, block)

    return depthwise.with_attr("tvmcompress.workspaces", {"band": k.band.nbytes})
