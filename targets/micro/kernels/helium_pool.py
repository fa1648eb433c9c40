"""Global average pooling with Helium: eight channels at a time, summed as halfwords."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.vectors import splat
from .helium_words import vmulh, widened

# mypy: ignore-errors

MOST_PIXELS = 255
"""Sums of more bytes than this do not fit halfwords."""
LANES = 8


def global_average(pixels: int, channels: int, qmin: int, qmax: int) -> tirx.PrimFunc:
    """The function of (input, output), flat: the mean over pixels, halves rounded away from zero.

    The division is exact: n / d = (n * ceil(2**32 / d)) >> 32 for n < 2**16 and d < 2**8.

    Args:
        pixels: From 2 to `MOST_PIXELS`.
        channels: At least 8.
        qmin, qmax: Limits of the result.
    """
    reciprocal = -(-(1 << 32) // pixels)

    def start(block):
        return T.min(block * LANES, channels - LANES) if channels % LANES else block * LANES

    def mean(total):
        rounded = vmulh(tirx.abs(total) + splat(pixels // 2), splat(reciprocal))
        # Two's complement by the sign: (n ^ -1) - -1 is -n.
        sign = total >> splat(31)
        return tirx.min(tirx.max((rounded ^ sign) - sign, splat(qmin)), splat(qmax))

    def result(sums):
        even, odd = mean(widened(sums, 0)), mean(widened(sums, 1))
        return tirx.reinterpret("int16x8", (even & splat(0xFFFF)) | (odd << splat(16))).astype("int8x8")

    @T.prim_func(s_tir=True)
    def average(x: T.Buffer((pixels * channels,), "int8"), out: T.Buffer((channels,), "int8")):
        T.func_attr({"tirx.noalias": True})
        sums = T.alloc_buffer((1,), "int16x8")
        for c in range(-(-channels // LANES)):
            sums[0] = T.broadcast(T.int16(0), LANES)
            for p in range(pixels):
                sums[0] = sums[0] + x.vload([p * channels + start(c)], "int8x8").astype("int16x8")
            out[T.ramp(start(c), 1, LANES)] = result(sums[0])

    return average.with_attr("tvmcompress.workspaces", {"": 0})
