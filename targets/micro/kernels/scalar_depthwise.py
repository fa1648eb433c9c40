"""Depthwise convolution with kernels three wide for cores without the DSP extension.

The rows that an output row needs are in a strip padded with the zero point. Those that the next output row needs too are moved
up in it rather than copied from the input again, where outputs may lie by now. A routine (see `scalar_assembly`) makes a few
neighbouring outputs of all channels at a time: each value of the input is loaded once for all of them, as are the three weights
of a kernel's row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from .routines import copy_routine, taps_routine
from .scalar_epilogue import WORDS, ScalarEpilogue
from .scalar_frame import GIVEN

# mypy: ignore-errors


@dataclass(frozen=True)
class ScalarDepthwise(ConvolutionShape):
    """A depthwise convolution with one output channel for each channel.

    Attributes:
        epilogue: How accumulators become outputs.
        tile: Outputs of a row that are made at a time; no more than there are.
    """

    epilogue: ScalarEpilogue
    tile: int = 2

    @property
    def fits(self) -> bool:
        """Whether the template covers the layer."""
        covered = self.kernel[1] == 3 and self.kernel[0] <= 7 and self.strides[1] in (1, 2)
        return covered and self.channels == self.out_channels and self.out_width >= 2

    @property
    def tiles(self) -> list[int]:
        """Those that may be decided for."""
        most = 5 if self.strides[1] == 1 and self.epilogue.long else 4
        return list(range(2, min(most, self.out_width) + 1))

    @property
    def pitch(self) -> int:
        """Bytes of a row of the strip."""
        covered = (self.out_width - 1) * self.strides[1] + 3
        return -(-max(covered, self.left + self.width) * self.channels // 4) * 4

    @property
    def kept(self) -> int:
        """Rows of the strip that the next output row needs too."""
        return max(0, self.kernel[0] - self.strides[0])

    @property
    def bytes_per_channel(self) -> int:
        """Bytes of the stream for each channel: the weights, padded to words for Armv6-M, and the epilogue's words."""
        taps = 3 * self.kernel[0]
        return (taps if self.epilogue.long else -(-taps // 4) * 4) + 4 * WORDS

    @property
    def counts(self) -> list[int]:
        """What the routine is given behind the places of outputs, and trip counts: tiles, output rows, rows of the kernel."""
        ep = self.epilogue
        trips = [-(-self.out_width // self.tile), self.out_height, self.kernel[0]]
        return [self.pitch, self.channels * self.bytes_per_channel, 2 * ep.zero_point + 1, ep.qmin, ep.qmax, *trips]

    @property
    def inplace(self) -> bool:
        """Whether the output may lie where the input lies: a row is in the strip before it is written."""
        same = (self.height, self.width, self.strides) == (self.out_height, self.out_width, (1, 1))
        return same and self.kernel[0] > self.top

    def constants(self, weights: np.ndarray, parameters: np.ndarray) -> list[np.ndarray]:
        """What the function reads: the stream of the routine, flat int8, and counts, flat int32.

        Args:
            weights: (C, taps) int8.
            parameters: (C, WORDS) int32 of the epilogue.
        """
        stream = np.zeros((self.channels, self.bytes_per_channel), np.int8)
        stream[:, : weights.shape[1]] = weights
        stream[:, -4 * WORDS :] = np.ascontiguousarray(parameters.astype("<i4")).view(np.int8)
        return [stream.ravel(), np.array(self.counts, np.int32)]

    def function(self) -> tirx.PrimFunc:
        """The function of (input, stream, counts, output), all flat.

        Trip counts are read from memory, since LLVM unrolls what it knows them of.
        """
        H, W, C, OH, OW = self.height, self.width, self.channels, self.out_height, self.out_width
        SH, SW, TILE, KH, KEPT = *self.strides, self.tile, self.kernel[0], self.kept
        PITCH, ZP, COUNTS = self.pitch, self.input_zero_point & 0xFF, len(self.counts)
        name = taps_routine(not self.epilogue.long, TILE, KH, self.epilogue.finish, SW)
        copy = copy_routine(not self.epilogue.long)
        HAS_KEPT = KEPT > 0

        def call(name, *arguments):
            return T.evaluate(T.call_extern("int32", name, *arguments))

        def row(step, r):
            """The input row in a row of the strip."""
            return step * SH + r - self.top

        def column(tile):
            """The first output of a tile; the last one may overlap the one before."""
            return T.min(tile * TILE, OW - TILE) if OW % TILE else tile * TILE

        def clear(strip, r):
            return call("memset", T.address_of(strip[r * PITCH]), ZP, PITCH)

        def keep(strip, r):
            return call(copy, T.address_of(strip[r * PITCH]), T.address_of(strip[(r + SH) * PITCH]), PITCH)

        def bring(strip, x, r, step):
            places = T.address_of(strip[r * PITCH + self.left * C]), T.address_of(x[row(step, r) * (W * C)])
            return call(copy, *places, W * C)

        def make(strip, w, out, counts, step, tile):
            places = (strip, column(tile) * (SW * C)), (w, 0), (out, (step * OW + column(tile)) * C), (counts, 0)
            return call(name, *(T.address_of(buffer[place]) for buffer, place in places))

        @T.prim_func(s_tir=True)
        def depthwise(
            x: T.Buffer((H * W * C,), "int8"),
            w: T.Buffer((C * self.bytes_per_channel,), "int8"),
            q: T.Buffer((COUNTS,), "int32"),
            out: T.Buffer((OH * OW * C,), "int8"),
        ):
            T.func_attr({"tirx.noalias": True})
            strip = T.alloc_buffer((KH * PITCH,), "int8")
            counts = T.alloc_buffer((TILE + GIVEN,), "int32")
            for i in T.unroll(TILE):
                counts[i] = i * C
            for i in T.unroll(GIVEN):
                counts[TILE + i] = q[i]
            for r in range(q[GIVEN + 2]):
                clear(strip, r)
            for step in range(q[GIVEN + 1]):
                for r in range(q[GIVEN + 2]):
                    if HAS_KEPT and T.And(step > 0, r < KEPT):
                        keep(strip, r)
                    else:
                        if T.And(row(step, r) >= 0, row(step, r) < H):
                            bring(strip, x, r, step)
                        else:
                            clear(strip, r)
                for tile in range(q[GIVEN]):
                    make(strip, w, out, counts, step, tile)

        depthwise = depthwise.with_attr("tvmcompress.workspaces", {"strip": KH * PITCH})
        return depthwise.with_attr("tvmcompress.inplace", 0) if self.inplace else depthwise
