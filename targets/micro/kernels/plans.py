"""Choosing the template parameters of a layer by its shape.

The rules follow exhaustive measurements of the template on the layers of small residual, depthwise-separable and mobile
networks (executed instructions on a Cortex-M4): three pixels at a time beat two where hardly any are repeated at the end; the
longest round of the inner loop that code size bears is best; a reduction of a single round wants no loop at all.

Of routines (see `routines`) few lengths are taken, so that layers share them: a longer round than one of eight words saves one
or two hundredths. They make three pixels at a time even where one of twenty is repeated; but before a sum not with few words,
since the sum is most of the work then, nor where bytes share words: what unpacks three pixels would be most of the code.
"""

from __future__ import annotations

from dataclasses import replace

from .dense import Dense
from .depthwise import Depthwise
from .panel import Convolution, PanelConvolution, PanelPlan
from .routines import fits
from .winograd import WinogradConvolution, WinogradPlan, is_minimal

_LONGEST_ROUND = 16
_BAND_BYTES = 4096
_LEAST_ROUND = 6
_ONE_ROUND = 10
"""Words that a routine takes in one round."""
_SHARED_ROUNDS = (8, 12, 9, 10, 7)
"""Words in a round of routines that take more: what comes first is taken where several waste as little."""
_LONG_ROUNDS = (16, 12, 14)
"""The same of long ones."""
_DENSE_ROUNDS = (4, 16)
"""Most words in a round of a dense layer's routine, short or long."""


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


def plan_panel_routine(conv: Convolution, plan: PanelPlan, long: bool, adds: bool = False) -> PanelPlan | None:
    """A plan with a routine in place of LLVM's inner loop, or None where routines do not have what it takes.

    Args:
        conv: The convolution.
        plan: With LLVM's loop.
        long: Whether the round shall be long; None where it would waste more words.
        adds: Whether a sum follows in the same kernel.
    """
    if not fits(conv.epilogue) or conv.out_channels % 2 or plan.late_bias:
        return None
    kernel = PanelConvolution(conv, plan)
    walk, words = kernel.source.walk, kernel.used_words
    three = -(-walk // 3) * 3 <= 1.05 * walk and not (adds and (words <= _ONE_ROUND or kernel.rest))
    pixels = 3 if three else plan.pixels

    def padded(rounds: int) -> int:
        return -(-words // rounds) * rounds

    unroll = words if words <= _ONE_ROUND else min(_SHARED_ROUNDS, key=padded)
    if long:
        short, unroll = unroll, min(_LONG_ROUNDS, key=padded)
        if words <= _ONE_ROUND or unroll <= short or padded(unroll) > padded(short):
            return None
    return replace(plan, pixels=pixels, unroll=unroll, halves=True, routine=True)


def plan_dense_routine(layer: Dense, long: bool) -> Dense | None:
    """The layer with a routine in place of LLVM's loops, or None where there is none of the wanted length or it does not fit.

    Args:
        layer: The layer.
        long: Whether the round shall be long, for layers that are large or share the routine.
    """
    if not fits(layer.epilogue) or layer.outputs % 4 or layer.late_bias or not layer.unpacked:
        return None
    short, unroll = (max(n for n in range(1, most + 1) if layer.inputs // 4 % n == 0) for most in _DENSE_ROUNDS)
    if long and unroll == short:
        return None
    return replace(layer, pairs=2, unroll=unroll if long else short, routine=True)


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


def plan_winograd(conv: Convolution, room: int, tile: int = 2, routine: bool = False) -> WinogradPlan | None:
    """The plan of a convolution by minimal filtering, or None where it does not apply, fit or pay.

    Weights are transformed once, so the image must be large enough; inputs once for each block of channels.

    Args:
        conv: The convolution.
        room: Bytes of workspace that it may use.
        tile: Outputs of a tile.
        routine: Whether a routine makes the products.
    """
    c = conv
    if not is_minimal(c, tile) or c.channels < 8 or c.out_width < 2 * tile or c.out_height < 4:
        return None
    words = 3 * c.channels // 4
    unroll = max(n for n in range(1, _LONGEST_ROUND + 1) if words % n == 0)
    if unroll < _LEAST_ROUND:
        return None
    if routine and words > _LONGEST_ROUND and words % _SHARED_ROUNDS[0] == 0:
        unroll = _SHARED_ROUNDS[0]
    best = None
    for block in range(2, c.out_channels + 1, 2):
        for rows in range(1, c.out_height + 1):
            for whole in (False, True):
                if c.out_channels % block or c.out_height % rows or (whole and rows < c.out_height):
                    continue
                plan = WinogradPlan(block, rows, whole, unroll, tile, routine)
                if sum(WinogradConvolution(c, plan).workspaces.values()) > room:
                    continue
                transforms = (1 if whole else c.out_channels // block) * (rows + 2) / rows
                if best is None or transforms < best[0]:
                    best = (transforms, plan)
    return best[1] if best is not None else None
