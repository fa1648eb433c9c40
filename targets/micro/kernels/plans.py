"""Choosing the template parameters of a layer by its shape.

The rules follow exhaustive measurements of the template on the layers of small residual, depthwise-separable and mobile
networks (executed instructions on a Cortex-M4): three pixels at a time beat two where hardly any are repeated at the end; the
longest round of the inner loop that code size bears is best; a reduction of a single round wants no loop at all.
"""

from __future__ import annotations

from .depthwise import Depthwise
from .panel import Convolution, PanelPlan
from .winograd import WinogradConvolution, WinogradPlan, is_minimal

_LONGEST_ROUND = 16
_BAND_BYTES = 4096
_LEAST_ROUND = 6


def plan_convolution(conv: Convolution, adds: bool = False) -> PanelPlan | None:
    """The plan of a convolution, or None where the panel template does not pay or fit.

    Args:
        conv: The convolution.
        adds: Whether a sum follows in the same kernel.
    """
    pixels = conv.out_height * conv.out_width
    if pixels < 2:
        return None
    if is_direct(conv):
        source = "direct"
    elif conv.out_width >= 8:
        source = "strip"
    else:
        source = "image"
    row = conv.kernel[1] * conv.channels
    words = conv.kernel[0] * (row // 4) + -(-conv.kernel[0] * (row % 4) // 4)
    walk = conv.out_width if source == "strip" else pixels
    three = -(-walk // 3) * 3 <= (1 if adds else 1.02) * walk
    return PanelPlan(source, 3 if three else 2, round_length(words), halves=three and words <= 8)


def is_direct(conv: Convolution) -> bool:
    """Whether the input can be read as it lies."""
    pointwise = conv.kernel == (1, 1) and conv.top == 0 and conv.left == 0
    down, across = (conv.out_height - 1) * conv.strides[0], (conv.out_width - 1) * conv.strides[1]
    return pointwise and down < conv.height and across < conv.width and conv.channels % 4 == 0


def round_length(words: int) -> int:
    """Words of one round of the inner loop: few words in one round, many in the longest that divides them well."""
    if words <= 8:
        return max(words, 1)
    return min(range(5, _LONGEST_ROUND + 1), key=lambda n: (-(-words // n) * n, -n))


def plan_band(height: int, layer: Depthwise) -> int:
    """How many output rows a depthwise band makes: the largest number that fits the workspace and divides evenly.

    One band of all rows lets the output lie where the input lies, so it may be larger.
    """
    whole = 16 * ((height - 1) * layer.stride + 3) * layer.row_words
    if layer.stride == 1 and whole <= layer.height * layer.width * layer.channels // 2:
        return height
    best = 1
    for rows in range(1, height + 1):
        words = 16 * ((rows - 1) * layer.stride + 3) * layer.row_words
        if words <= _BAND_BYTES and (height % rows == 0 or rows == height):
            best = rows
    return best


def plan_winograd(conv: Convolution, room: int) -> WinogradPlan | None:
    """The plan of a convolution by minimal filtering, or None where it does not apply, fit or pay.

    Weights are transformed once, so the image must be large enough; inputs once for each block of channels.

    Args:
        conv: The convolution.
        room: Bytes of workspace that it may use.
    """
    c = conv
    if not is_minimal(c) or c.channels < 8 or c.out_width < 4 or c.out_height < 4:
        return None
    words = 3 * c.channels // 4
    unroll = max(n for n in range(1, _LONGEST_ROUND + 1) if words % n == 0)
    if unroll < _LEAST_ROUND:
        return None
    best = None
    for block in range(2, c.out_channels + 1, 2):
        for rows in range(1, c.out_height + 1):
            for whole in (False, True):
                if c.out_channels % block or c.out_height % rows or (whole and rows < c.out_height):
                    continue
                plan = WinogradPlan(block, rows, whole, unroll)
                if sum(WinogradConvolution(c, plan).workspaces.values()) > room:
                    continue
                transforms = (1 if whole else c.out_channels // block) * (rows + 2) / rows
                if best is None or transforms < best[0]:
                    best = (transforms, plan)
    return best[1] if best is not None else None
