"""Choosing the template parameters of a layer by its shape, for Helium.

The rules follow executed instructions on the layers of small residual, depthwise-separable and mobile networks: what
surrounds the inner loop costs as much as two or three vectors of it, so rounds are as long as the reach of one pointer
allows; copying is cheap against multiplying, so bands may be small.
"""

from __future__ import annotations

from dataclasses import replace

from ...kernels.vectors import VECTOR
from .helium_conv_shape import HeliumConvolution, HeliumPlan
from .helium_depthwise import HeliumDepthwise

_LONGEST_ROUND = 8
_LONGEST_EXACT_ROUND = 12
_BAND_BYTES = 6144
_PANEL_BYTES = 3072
_DEPTHWISE_BAND_BYTES = 4096
MOST_TAPS = 25
"""Taps of the largest depthwise kernel; they are unrolled."""


def plan_convolution(conv: HeliumConvolution) -> HeliumPlan:
    """The plan of a convolution."""
    if conv.pointwise:
        unroll = exact_round_length(conv.channels)
        if unroll is not None:
            return HeliumPlan("direct", conv.out_height, 1, unroll)
        pixels = conv.out_height * conv.out_width if conv.strides == (1, 1) else conv.out_width
        if conv.channels == 8 and conv.strides[1] == 1 and pixels % 2 == 0:
            return HeliumPlan("paired", conv.out_height, 1, 1)
    taken = conv.kernel[0] * vectors(conv.run)
    joined = vectors(conv.kernel[0] * conv.run)
    rows = max(r for r in range(1, conv.out_height + 1) if r == 1 or _fits(conv, r))
    # Joining the rows of a field costs about two instructions a row and pixel, for all channels at once.
    gain = (taken - joined) * 7 * conv.out_channels // 8
    if gain > 2 * taken:
        row = joined * VECTOR * conv.out_width
        rows = max(r for r in range(1, conv.out_height + 1) if r == 1 or (_fits(conv, r) and r * row <= _PANEL_BYTES))
        return HeliumPlan("columns", rows, 1, round_length(joined))
    runs = conv.kernel[0] if taken <= _LONGEST_ROUND else 1
    return HeliumPlan("band", rows, runs, round_length(vectors(conv.run)))


def vectors(count: int) -> int:
    """Vectors that hold `count` bytes."""
    return -(-count // VECTOR)


def round_length(count: int) -> int:
    """Vectors of one round of the inner loop: the longest rounds that waste the fewest vectors."""
    if count <= _LONGEST_ROUND:
        return max(count, 1)
    return min(range(4, _LONGEST_ROUND + 1), key=lambda n: (-(-count // n) * n, -n))


def exact_round_length(count: int) -> int | None:
    """Vectors of one round where none may reach beyond `count` bytes; None where rounds would be too short."""
    if VECTOR <= count <= _LONGEST_EXACT_ROUND * VECTOR and (count % VECTOR or count <= _LONGEST_ROUND * VECTOR):
        return vectors(count)
    fitting = [n for n in range(3, _LONGEST_ROUND + 1) if count % (n * VECTOR) == 0]
    return max(fitting, default=None)


def _fits(conv: HeliumConvolution, rows: int) -> bool:
    return conv.out_height % rows == 0 and conv.band(rows).bytes <= _BAND_BYTES


def plan_depthwise(layer: HeliumDepthwise) -> int:
    """How many output rows a depthwise band makes."""
    fitting = [
        rows
        for rows in range(1, layer.out_height + 1)
        if layer.out_height % rows == 0 and replace(layer, rows=rows).band.bytes <= _DEPTHWISE_BAND_BYTES
    ]
    return max(fitting, default=1)
