"""Global average pooling for cores with the DSP extension: four channels at a time, two to a word."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.vectors import i32
from .words import even_bytes, load_word, odd_bytes, sadd16

# mypy: ignore-errors

MOST_PIXELS = 255
"""Sums of more bytes than this do not fit halfwords."""


def global_average(pixels: int, channels: int, qmin: int, qmax: int) -> tirx.PrimFunc:
    """The function of (input, output), flat: the mean over pixels, halves rounded away from zero.

    Args:
        pixels: At most `MOST_PIXELS`.
        channels: A multiple of 4.
        qmin, qmax: Limits of the result.
    """
    half = pixels // 2

    def mean(word, top):
        total = (word >> i32(16)) if top else ((word << i32(16)) >> i32(16))
        rounded = tirx.Select(total > 0, total + half, total - half)
        return tirx.max(tirx.min(tirx.truncdiv(rounded, i32(pixels)), i32(qmax)), i32(qmin)).astype("int8")

    @T.prim_func(s_tir=True)
    def average(x: T.Buffer((pixels * channels,), "int8"), out: T.Buffer((channels,), "int8")):
        T.func_attr({"tirx.noalias": True})
        sums = T.alloc_buffer((2,), "int32")
        for c in range(channels // 4):
            sums[0] = 0
            sums[1] = 0
            for p in range(pixels):
                sums[0] = sadd16(sums[0], even_bytes(load_word(x, p * channels + c * 4)))
                sums[1] = sadd16(sums[1], odd_bytes(load_word(x, p * channels + c * 4)))
            out[c * 4] = mean(sums[0], False)
            out[c * 4 + 1] = mean(sums[1], False)
            out[c * 4 + 2] = mean(sums[0], True)
            out[c * 4 + 3] = mean(sums[1], True)

    return average.with_attr("tvmcompress.workspaces", {"": 0})
