"""Choosing the template parameters of a layer by its shape, for Helium.

The rules follow executed instructions: what surrounds the inner loop costs about as much as one vector of it, so rounds are
long; copying is cheap against multiplying, so bands may be small.
"""

from __future__ import annotations

from .helium_conv import HeliumConvolution, HeliumPlan
from .helium_words import VECTOR

_LONGEST_ROUND = 12
_BAND_BYTES = 6144


def plan_convolution(conv: HeliumConvolution) -> HeliumPlan | None:
    """The plan of a convolution, or None where the template does not pay."""
    if conv.pointwise and conv.channels % VECTOR == 0:
        return HeliumPlan("direct", conv.out_height, round_length(conv.channels // VECTOR))
    taken = conv.kernel[0] * vectors(conv.run)
    joined = vectors(conv.kernel[0] * conv.run)
    rows = max(r for r in range(1, conv.out_height + 1) if r == 1 or _fits(conv, r))
    # Joining the rows of a field costs about two instructions a row and pixel, for all channels at once.
    gain = (taken - joined) * 7 * conv.out_channels // 8
    if gain > 2 * taken:
        return HeliumPlan("columns", rows, round_length(joined))
    return HeliumPlan("band", rows, round_length(vectors(conv.run)))


def vectors(count: int) -> int:
    """Vectors that hold `count` bytes."""
    return -(-count // VECTOR)


def round_length(count: int) -> int:
    """Vectors of one round of the inner loop: the longest rounds that waste the fewest vectors."""
    if count <= _LONGEST_ROUND:
        return max(count, 1)
    return min(range(4, _LONGEST_ROUND + 1), key=lambda n: (-(-count // n) * n, -n))


def _fits(conv: HeliumConvolution, rows: int) -> bool:
    return conv.out_height % rows == 0 and conv.band_rows(rows) * conv.pitch <= _BAND_BYTES
