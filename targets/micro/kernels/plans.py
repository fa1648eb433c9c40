"""Choosing the template parameters of a layer by its shape.

What the rules follow: a panel should waste few pixels at the end of a row; the inner loop wants about eight words a round;
the workspace costs RAM next to the largest activations, so it stays small.
"""

from __future__ import annotations

from .depthwise import Depthwise
from .panel import Convolution, PanelPlan

_PANEL_BYTES = 2560
_BAND_BYTES = 4096


def plan_convolution(conv: Convolution, *, wide_weights: bool = False) -> PanelPlan | None:
    """The plan of a convolution, or None where the panel template does not pay or fit."""
    pixels = conv.out_height * conv.out_width
    if pixels < 2:
        return None
    pointwise = conv.kernel == (1, 1) and conv.top == 0 and conv.left == 0
    inside = (conv.out_height - 1) * conv.strides[0] < conv.height and (
        conv.out_width - 1
    ) * conv.strides[1] < conv.width
    if pointwise and inside and conv.channels % 4 == 0:
        source, span = "direct", pixels
    elif conv.out_width >= 8:
        source, span = "strip", conv.out_width
    else:
        source, span = "image", pixels
    row = conv.kernel[1] * conv.channels
    words = conv.kernel[0] * (row // 4) + -(-conv.kernel[0] * (row % 4) // 4)
    unroll = min(range(4, 10), key=lambda u: (-(-words // u) * u, abs(u - 8))) if words > 4 else max(words, 1)
    padded = -(-words // unroll) * unroll

    def waste(pairs: int) -> tuple[float, int]:
        covered = -(-span // (2 * pairs)) * 2 * pairs
        return covered / span, -pairs

    fitting = [p for p in (1, 2, 3, 4) if 2 * p <= span and (p == 1 or p * padded * 16 <= _PANEL_BYTES)]
    return PanelPlan(source, min(fitting, key=waste), unroll, True, wide_weights)


def plan_band(height: int, layer: Depthwise) -> int:
    """How many output rows a depthwise band makes: the largest number that fits the workspace and divides evenly."""
    best = 1
    for rows in range(1, height + 1):
        words = 16 * ((rows - 1) * layer.stride + 3) * layer.row_words
        if words <= _BAND_BYTES and (height % rows == 0 or rows == height):
            best = rows
    return best
