"""Averages of windows and means of images, sixteen channels at a time, which lie side by side in NHWC.

Bytes are added up as halfwords, of which one holds the sum of 255. The division of an average is exact: of n below 2**15 and a
count d, with l = ceil(log2(d)), n / d = (n * m) >> (15 + l) for m = floor(2**(15 + l) / d) + 1, which is below 2**16
(Granlund and Montgomery, "Division by invariant integers using multiplication", 1994, theorem 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, vector_start
from .epilogue import Epilogue
from .neon import high, joined, low
from .pools import Pool

# mypy: ignore-errors

MOST_PIXELS = 255
"""Sums of more bytes than this do not fit halfwords."""
_BITS = 15
_HALVES = VECTOR // 2
_UNROLLED = 8
"""Pixels of a window's row that are added without a loop."""


def reciprocals(least: int, most: int) -> np.ndarray:
    """Of each count between two, at least 1, the factor and what is shifted to the right; (most - least + 1, 2) int32."""
    counts = np.arange(least, most + 1)
    shifts = _BITS + np.ceil(np.log2(counts)).astype(np.int64)
    return np.stack([(1 << shifts) // counts + 1, shifts], axis=1).astype(np.int32)


def counts(p: Pool) -> tuple[int, int]:
    """The least and the greatest number of pixels that a window has on the input."""
    ends = []
    for places, stride, before, window, size in (
        (p.out_height, p.strides[0], p.top, p.window[0], p.height),
        (p.out_width, p.strides[1], p.left, p.window[1], p.width),
    ):
        starts = np.arange(places) * stride - before
        covered = np.minimum(starts + window, size) - np.maximum(starts, 0)
        ends.append((int(covered.min()), int(covered.max())))
    return ends[0][0] * ends[1][0], ends[0][1] * ends[1][1]


def _halves(loaded: tirx.PrimExpr, part: int) -> tirx.PrimExpr:
    """Eight of sixteen bytes as halfwords."""
    return (high if part else low)(loaded, _HALVES).astype("int16x8")


def average_pool(p: Pool) -> tirx.PrimFunc:
    """The function of (input, reciprocals, output), all flat: means of the part of each window that lies on the input, halves
    rounded away from zero."""
    (KH, KW), BLOCKS = p.window, -(-p.channels // VECTOR)
    INPUT, OUTPUT = p.elements
    LEAST, MOST = counts(p)
    WORDS = 2 * (MOST - LEAST + 1)

    def covered(place, window, size):
        return T.min(place + window, size) - T.max(place, 0)

    def add(x, sums, loaded, place, row, column, block):
        at = ((place[0] + row) * p.width + place[1] + column) * p.channels + p.channel(block)
        T.buffer_store(loaded, x.vload([at], "int8x16"), [0])
        for part in range(2):
            T.buffer_store(sums, sums[part] + _halves(loaded[0], part), [part])

    def mean(total, factor, shift, half):
        """int16x8."""
        rounded = (tirx.abs(total) + half).astype("uint16x8")
        wide = rounded.astype("uint32x8") * tirx.Broadcast(factor.astype("uint32"), _HALVES)
        quotient = (wide >> tirx.Broadcast(shift.astype("uint32"), _HALVES)).astype("int16x8")
        # Two's complement by the sign: (n ^ -1) - -1 is -n.
        sign = total >> tirx.Broadcast(tirx.const(_BITS, "int16"), _HALVES)
        return ((quotient ^ sign) - sign).astype("int8x8")

    @T.prim_func(s_tir=True)
    def average(x: T.Buffer((INPUT,), "int8"), table: T.Buffer((WORDS,), "int32"), out: T.Buffer((OUTPUT,), "int8")):
        T.func_attr({"tirx.noalias": True})
        place = T.alloc_buffer((4,), "int32", scope="local")
        words = T.alloc_buffer((2,), "int32", scope="local")
        half = T.alloc_buffer((1,), "int16x8", scope="local")
        sums = T.alloc_buffer((2,), "int16x8", scope="local")
        loaded = T.alloc_buffer((1,), "int8x16", scope="local")
        for i in parallel(p.out_height):
            for j in range(p.out_width):
                place[0] = T.max(i * p.strides[0] - p.top, 0)
                place[1] = T.max(j * p.strides[1] - p.left, 0)
                place[2] = covered(i * p.strides[0] - p.top, KH, p.height)
                place[3] = covered(j * p.strides[1] - p.left, KW, p.width)
                words[0] = table[2 * (place[2] * place[3] - LEAST)]
                words[1] = table[2 * (place[2] * place[3] - LEAST) + 1]
                half[0] = T.broadcast(T.shift_right(place[2] * place[3], 1).astype("int16"), _HALVES)
                for block in range(BLOCKS):
                    sums[0] = T.broadcast(T.int16(0), _HALVES)
                    sums[1] = T.broadcast(T.int16(0), _HALVES)
                    if place[3] == KW:
                        for row in range(place[2]):
                            for column in T.unroll(KW) if KW <= _UNROLLED else T.serial(KW):
                                add(x, sums, loaded, place, row, column, block)
                    else:
                        for row in range(place[2]):
                            for column in range(place[3]):
                                add(x, sums, loaded, place, row, column, block)
                    out[T.ramp((i * p.out_width + j) * p.channels + p.channel(block), 1, VECTOR)] = p.clipped(
                        joined(
                            mean(sums[0], words[0], words[1], half[0]), mean(sums[1], words[0], words[1], half[0]), _HALVES
                        )
                    )

    return average.with_attr("tvmcompress.workspaces", {"": 0})


@dataclass(frozen=True)
class Mean:
    """Means over the pixels of images.

    Attributes:
        images, pixels, channels: Of the input; at least 16 channels.
        epilogue: Of the sums.
    """

    images: int
    pixels: int
    channels: int
    epilogue: Epilogue

    def parameters(self, zero_point: int, multiplier: int, shift: int) -> np.ndarray:
        """What the sums begin with, the factor, and the output's zero point; int32."""
        factor = self.epilogue.parameters(np.array([multiplier]), np.array([shift])).ravel()
        return np.concatenate([[-zero_point * self.pixels], factor, self.epilogue.tail]).astype(np.int32)


def mean(m: Mean) -> tirx.PrimFunc:
    """The function of (input, parameters, output), all flat."""
    epilogue, BLOCKS = m.epilogue, -(-m.channels // VECTOR)
    WORDS = 1 + epilogue.words + len(epilogue.tail)
    FULL, REST = divmod(m.pixels, MOST_PIXELS)

    def words(halves, quarter):
        part = (high if quarter % 2 else low)(halves[quarter // 2], 4)
        return part.astype("int32x4")

    def result(sums, parameters):
        factors = [T.Broadcast(parameters[1 + i], 4) for i in range(epilogue.words)]
        zero = epilogue.zero(parameters, 1 + epilogue.words)
        return epilogue.bytes([epilogue.scaled(sums[quarter], factors) for quarter in range(4)], zero)

    def first(image, part, block):
        """Of a block's elements in one of the parts of an image."""
        return (image * m.pixels + part * MOST_PIXELS) * m.channels + vector_start(block, m.channels)

    def add_up(x, sums, halves, first, count):
        """`count` pixels from an element on."""
        for part in range(2):
            T.buffer_store(halves, T.broadcast(T.int16(0), _HALVES), [part])
        with T.serial(count) as pixel:
            for part in range(2):
                loaded = x.vload([first + pixel * m.channels], "int8x16")
                T.buffer_store(halves, halves[part] + _halves(loaded, part), [part])
        for quarter in range(4):
            T.buffer_store(sums, sums[quarter] + words(halves, quarter), [quarter])

    @T.prim_func(s_tir=True)
    def means(
        x: T.Buffer((m.images * m.pixels * m.channels,), "int8"),
        parameters: T.Buffer((WORDS,), "int32"),
        out: T.Buffer((m.images * m.channels,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        sums = T.alloc_buffer((4,), "int32x4", scope="local")
        halves = T.alloc_buffer((2,), "int16x8", scope="local")
        for image in range(m.images):
            for block in parallel(BLOCKS):
                for quarter in T.unroll(4):
                    sums[quarter] = T.Broadcast(parameters[0], 4)
                for part in range(FULL):
                    add_up(x, sums, halves, first(image, part, block), MOST_PIXELS)
                if REST > 0:
                    add_up(x, sums, halves, first(image, FULL, block), REST)
                out[T.ramp(image * m.channels + vector_start(block, m.channels), 1, VECTOR)] = result(sums, parameters)

    return means.with_attr("tvmcompress.workspaces", {"": 0})
