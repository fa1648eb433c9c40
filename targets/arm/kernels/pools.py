"""The maximum of windows with padding, sixteen channels at a time, which lie side by side in NHWC.

The maximum of a window that reaches beyond the image is that of its part inside, so places outside are moved to the nearest one
inside, which lies in the window, too. Without padding the generic schedule does as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, vector_start
from .neon import splat_bytes

# mypy: ignore-errors


@dataclass(frozen=True)
class Pool:
    """A pool.

    Attributes:
        height, width, channels: Of the input; at least 16 channels.
        out_height, out_width: Of the output.
        window, strides: (vertical, horizontal).
        top, left: Padding before.
        qmin, qmax: Limits of the output.
    """

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    window: tuple[int, int]
    strides: tuple[int, int]
    top: int
    left: int
    qmin: int
    qmax: int

    @property
    def elements(self) -> tuple[int, int]:
        """Of the input, and of the output."""
        return self.height * self.width * self.channels, self.out_height * self.out_width * self.channels

    @property
    def taps(self) -> int:
        """Pixels of a window."""
        return self.window[0] * self.window[1]

    def channel(self, block: tirx.PrimExpr) -> tirx.PrimExpr:
        """The first of a block's sixteen."""
        return vector_start(block, self.channels)

    def clipped(self, value: tirx.PrimExpr) -> tirx.PrimExpr:
        """int8x16 in the limits."""
        if self.qmin > -128:
            value = tirx.max(value, splat_bytes(self.qmin, VECTOR))
        return tirx.min(value, splat_bytes(self.qmax, VECTOR)) if self.qmax < 127 else value


def _inside(place: tirx.PrimExpr, size: int) -> tirx.PrimExpr:
    return T.max(T.min(place, size - 1), 0)


def max_pool(p: Pool) -> tirx.PrimFunc:
    """The function of (input, output), both flat."""
    (KH, KW), BLOCKS = p.window, -(-p.channels // VECTOR)
    INPUT, OUTPUT = p.elements

    def place(i, j, tap):
        row, column = i * p.strides[0] + (tap // KW - p.top), j * p.strides[1] + (tap % KW - p.left)
        return (_inside(row, p.height) * p.width + _inside(column, p.width)) * p.channels

    @T.prim_func(s_tir=True)
    def maximum(x: T.Buffer((INPUT,), "int8"), out: T.Buffer((OUTPUT,), "int8")):
        T.func_attr({"tirx.noalias": True})
        places = T.alloc_buffer((KH * KW,), "int32", scope="local")
        most = T.alloc_buffer((1,), "int8x16", scope="local")
        for i in parallel(p.out_height):
            for j in range(p.out_width):
                for tap in T.unroll(KH * KW):
                    places[tap] = place(i, j, tap)
                for block in range(BLOCKS):
                    most[0] = x.vload([places[0] + p.channel(block)], "int8x16")
                    for tap in T.unroll(KH * KW - 1):
                        most[0] = tirx.max(most[0], x.vload([places[tap + 1] + p.channel(block)], "int8x16"))
                    out[T.ramp((i * p.out_width + j) * p.channels + p.channel(block), 1, VECTOR)] = p.clipped(most[0])

    return maximum.with_attr("tvmcompress.workspaces", {"": 0})
