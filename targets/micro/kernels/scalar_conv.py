"""Convolution, pointwise convolution and fully connected layers for cores without the DSP extension.

The output is walked in panels of some pixels. A panel's receptive fields are laid side by side as words, once for all output
channels, and a routine (see `scalar_assembly`) multiplies them with the weights of one or a few channels. Where the fields are
taken from depends on the layer:

- *direct*: a 1x1 kernel without padding reads the input as it lies;
- *strip*: the kernel's rows are copied to a strip padded with the zero point, one output row at a time;
- *image*: the whole padded input is copied once, for maps too narrow to fill panels with one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from .panel_source import PanelSource
from .routines import block_routine, copy_routine, lay_routine
from .scalar_epilogue import WORDS, ScalarEpilogue
from .scalar_frame import GIVEN

# mypy: ignore-errors

_STACK_BYTES = 256
"""Panels up to this size live on the stack."""


@dataclass(frozen=True)
class ScalarConvolution(ConvolutionShape):
    """The shape of a convolution, and how its accumulators become outputs."""

    epilogue: ScalarEpilogue

    @property
    def values(self) -> int:
        """How many a receptive field has."""
        return self.kernel[0] * self.kernel[1] * self.channels


@dataclass(frozen=True)
class ScalarPlan:
    """The choices of the template.

    Attributes:
        source: As of `PanelSource.kind`.
        products: "long", "word" or "low", see `scalar_assembly`.
        pixels, channels: Of a block; its channels divide the layer's.
        unroll: Values of a pixel in one round of the inner loop.
    """

    source: str
    products: str
    pixels: int
    channels: int
    unroll: int


class ScalarKernel:
    """One convolution by one plan: the packed constants and the function."""

    def __init__(self, conv: ScalarConvolution, plan: ScalarPlan) -> None:
        self.conv, self.plan = conv, plan

    @property
    def values(self) -> int:
        """How many a receptive field has, with those that fill the last round: their weights are zero."""
        return -(-self.conv.values // self.plan.unroll) * self.plan.unroll

    @property
    def words(self) -> int:
        """Words that a panel has for each value of a field."""
        return self.plan.pixels // 2 if self.plan.products == "long" else self.plan.pixels

    @cached_property
    def source(self) -> PanelSource:
        """Where receptive fields are taken from."""
        return PanelSource(self.conv, self.plan.source, self.plan.pixels)

    @property
    def panel_bytes(self) -> int:
        """Bytes of a panel."""
        return 4 * self.words * self.values

    @property
    def workspaces(self) -> dict[str, int]:
        """Bytes of the workspaces by name."""
        panel = {"panel": self.panel_bytes} if self.panel_bytes > _STACK_BYTES else {}
        return {**panel, **({"source": self.source.bytes} if self.source.copied else {})}

    def constants(self, weights: np.ndarray, parameters: np.ndarray) -> list[np.ndarray]:
        """What the function reads: the stream of the routine, flat int8, and counts, flat int32.

        Of each block of channels the stream has the weights, value by value those of all channels, and then the words of the
        epilogue, channel by channel.

        Args:
            weights: (O, K) int8.
            parameters: (O, WORDS) int32 of the epilogue.
        """
        c, channels = self.conv, self.plan.channels
        padded = np.zeros((c.out_channels, self.values), np.int8)
        padded[:, : c.values] = weights
        blocks = padded.reshape(-1, channels, self.values).transpose(0, 2, 1).reshape(-1, channels * self.values)
        words = np.ascontiguousarray(parameters.astype("<i4")).view(np.int8).reshape(len(blocks), -1)
        stream = np.concatenate([blocks, words], axis=1).ravel()
        return [stream, np.array(self.counts, np.int32)]

    @property
    def counts(self) -> list[int]:
        """What the routine is given behind the places of outputs, and trip counts.

        These are panels of a walk, walks, rows of the copy, and rows of the kernel.
        """
        c, ep, source = self.conv, self.conv.epilogue, self.source
        sizes = [self.panel_bytes, c.out_channels * (self.values + 4 * WORDS)]
        return [*sizes, 2 * ep.zero_point + 1, ep.qmin, ep.qmax, source.panels, source.walks, source.rows, c.kernel[0]]

    @property
    def inplace(self) -> bool:
        """Whether the output may lie where the input lies: every pixel is in a panel before it is written."""
        c = self.conv
        same = (c.out_height, c.out_width, c.out_channels) == (c.height, c.width, c.channels)
        return self.plan.source == "direct" and c.strides == (1, 1) and same

    def function(self) -> tirx.PrimFunc:
        """The function of (input, stream, counts, output), all flat.

        Trip counts are read from memory, since LLVM unrolls what it knows them of.
        """
        c, plan, ep = self.conv, self.plan, self.conv.epilogue
        H, W, C, OH, OW, CO = c.height, c.width, c.channels, c.out_height, c.out_width, c.out_channels
        SH, PX, HW, K, ROW = c.strides[0], plan.pixels, self.words, self.values, c.kernel[1] * C
        pixel, base, COPY, PITCH = self.source.pixel, self.source.base, self.source.copied, self.source.pitch
        STRIP, LONG = plan.source == "strip", plan.products == "long"
        SIZE = self.source.bytes if COPY else 4
        ZP = c.input_zero_point & 0xFF
        COUNTS = len(self.counts)
        multiply = block_routine(plan.products, PX, plan.channels, ep.finish, plan.unroll)
        lay, copy = lay_routine(plan.products, HW), copy_routine(not ep.long)

        def call(name, *arguments):
            return T.evaluate(T.call_extern("int32", name, *arguments))

        def top(step):
            """The input row that is first in the source."""
            return (step * SH if STRIP else 0) - c.top

        def clear(source, start, count):
            return call("memset", T.address_of(source[start]), ZP, count)

        def bring(source, x, r, step):
            """The call that copies a row of the input to row r of the source."""
            places = T.address_of(source[r * PITCH + c.left * C]), T.address_of(x[(top(step) + r) * (W * C)])
            return call(copy, *places, W * C)

        def place(field, panel, source, ky, j):
            """The call that lays one row of the fields of a pixel, or of two."""
            start = field[2 * j if LONG else j] + ky * PITCH
            apart = field[2 * j + 1] - field[2 * j] if LONG else 0
            return call(lay, T.address_of(panel[ky * ROW * HW + j]), T.address_of(source[start]), apart, ROW)

        def make(panel, w, out, counts, step, p):
            first = (step * OW + pixel(p, 0)) * CO
            return call(multiply, *(T.address_of(b[i]) for b, i in ((panel, 0), (w, 0), (out, first), (counts, 0))))

        @T.prim_func(s_tir=True)
        def conv(
            x: T.Buffer((H * W * C,), "int8"),
            w: T.Buffer((CO * (K + 4 * WORDS),), "int8"),
            q: T.Buffer((COUNTS,), "int32"),
            out: T.Buffer((OH * OW * CO,), "int8"),
        ):
            T.func_attr({"tirx.noalias": True})
            source = T.alloc_buffer((SIZE,), "int8")
            panel = T.alloc_buffer((HW * K,), "int32")
            counts = T.alloc_buffer((PX + GIVEN,), "int32")
            field = T.alloc_buffer((PX,), "int32")
            for i in T.unroll(GIVEN):
                counts[PX + i] = q[i]
            if COPY:
                clear(source, 0, SIZE)
            for step in range(q[GIVEN + 1]):
                if COPY:
                    for r in range(q[GIVEN + 2]):
                        if T.And(top(step) + r >= 0, top(step) + r < H):
                            bring(source, x, r, step)
                        else:
                            if STRIP:
                                clear(source, r * PITCH, PITCH)
                for p in range(q[GIVEN]):
                    for px in T.unroll(PX):
                        field[px] = base(pixel(p, px))
                        counts[px] = (pixel(p, px) - pixel(p, 0)) * CO
                    for ky in range(q[GIVEN + 3]):
                        for j in T.unroll(HW):
                            if COPY:
                                place(field, panel, source, ky, j)
                            else:
                                place(field, panel, x, ky, j)
                    make(panel, w, out, counts, step, p)

        conv = conv.with_attr("tvmcompress.workspaces", self.workspaces or {"": 0})
        return conv.with_attr("tvmcompress.inplace", 0) if self.inplace else conv
