"""3x3 convolutions of stride 1 by Winograd's minimal filtering, for cores with the DSP extension.

F(2, 3) along rows makes two neighbouring outputs of a row of three taps g from four inputs d by four products instead of six
(Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016). Multiplied by two it needs no fractions:

    m0 = (d0 - d2) * 2 g0             m1 = (d1 + d2) * (g0 + g1 + g2)
    m2 = (d2 - d1) * (g0 - g1 + g2)   m3 = (d3 - d1) * 2 g2
    2 y0 = m0 + m1 + m2               2 y1 = m1 - m2 + m3

F(4, 3) makes four outputs from six inputs by six products instead of twelve. Multiplied by 24 it needs no fractions either:

    m0 = (4 d0 - 5 d2 + d4) * 3 g0
    m1, m2 = ((d4 - 4 d2) +- (d3 - 4 d1)) * (g0 +- g1 + g2)
    m3, m4 = ((d4 - d2) +- 2 (d3 - d1)) * (g0 +- 2 g1 + 4 g2)
    m5 = (4 d1 - 5 d3 + d5) * 3 g2
    s, d, t, e = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    24 y0 = 2 m0 - 4 s + t      12 y1 = e - 2 d      6 y2 = t - s      6 y3 = 2 (e + m5) - d

These sums are exact modulo 2**32 and fit a word, so a shift and a product with the inverse of 3 modulo 2**32 divide them.

All factors are halfwords and all sums exact, so results are those of the plain convolution; the two is the gain that
requantization asks for. Each m is a sum over three rows and all channels: four matrix products with two thirds of the
multiply-accumulates, or six with half of them, computed for two tiles of pixels by two output channels at a time.

Transformed weights take 8/3 times the bytes of int8 ones (F(4, 3): four times), too much flash. They are made in the
workspace, for a block of output channels at a time; transformed inputs, for strips of two tiles by some rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx

from .elementwise import Sum
from .packing import pair_parameters
from .panel import Convolution
from .winograd_function import LEAD_WORDS, winograd_function

# mypy: ignore-errors

_MOST_CHANNELS = {2: 1024, 4: 112}
"""Input channels, by the outputs of a tile, for which every sum fits a word."""


def is_minimal(conv: Convolution, tile: int = 2) -> bool:
    """Whether minimal filtering with tiles of `tile` outputs can compute a convolution."""
    c = conv
    fits = c.channels % 4 == 0 and c.out_channels % 2 == 0 and c.channels <= _MOST_CHANNELS[tile]
    return c.kernel == (3, 3) and c.strides == (1, 1) and fits


@dataclass(frozen=True)
class WinogradPlan:
    """The choices of the template.

    Attributes:
        block: Output channels whose weights are transformed at a time; even, divides their number.
        rows: Output rows of a strip; divides their number.
        whole: Whether the inputs of all strips are transformed once, before anything else; `rows` is then all of them.
        unroll: Words of four k in one round of the inner loop; divides 3/4 of the input channels.
        tile: Outputs of a tile: 2 for F(2, 3), 4 for F(4, 3).
        routine: Whether a routine makes the products, see `routines`.
    """

    block: int
    rows: int
    whole: bool
    unroll: int
    tile: int = 2
    routine: bool = False


class WinogradConvolution:
    """One convolution by one plan: the packed constants and the function.

    With `residual` as of `panel.PanelConvolution`. The convolution has a 3x3 kernel, stride 1, input channels in multiples of
    four, and an even number of output channels.
    """

    def __init__(self, conv: Convolution, plan: WinogradPlan, residual: Sum | None = None) -> None:
        self.conv, self.plan, self.residual = conv, plan, residual

    def constants(
        self, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the function reads; as of `panel.PanelConvolution.constants`."""
        return self._weights(weights), self._parameters(bias, multiplier, shift)

    def _weights(self, weights: np.ndarray) -> np.ndarray:
        """Pack (O, 3, 3, C) int8, flat int32: a word is four channels, in the order O, row, channels, tap."""
        grouped = weights.reshape(len(weights), 3, 3, -1, 4).transpose(0, 1, 3, 2, 4)
        return np.ascontiguousarray(grouped).view(np.int32).ravel()

    def _parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Pack what the epilogue needs, flat int32, behind the trip counts of loops that LLVM should not unroll."""
        words = self.conv.epilogue.parameters(multiplier, shift)
        head = [
            self.rounds,
            self.products,
            self.words,
            self.conv.channels // 4,
            self.conv.top,
            self.conv.left,
        ]
        if self.plan.routine:
            # Bytes of a product's weights, and from the end of its inputs to the next one's.
            head += [16 * self.words, 16 * (self.plan.rows + 2) * self.conv.channels // 4 - 16 * self.words, self.products]
        return np.concatenate([np.array(head, np.int32), pair_parameters(bias, words, "wide", 2).ravel()])

    @property
    def words(self) -> int:
        """Words of four k in a reduction."""
        return 3 * self.conv.channels // 4

    @property
    def rounds(self) -> int:
        """Of the inner loop."""
        return self.words // self.plan.unroll

    @property
    def products(self) -> int:
        """Products of a tile."""
        return self.plan.tile + 2

    @property
    def strips(self) -> int:
        """Strips of two tiles."""
        return -(-self.conv.out_width // (2 * self.plan.tile))

    @property
    def workspaces(self) -> dict[str, int]:
        """Bytes of the transformed weights and inputs."""
        c, plan = self.conv, self.plan
        strips = self.strips if plan.whole else 1
        fields = 4 * self.products * strips * (plan.rows + 2) * c.channels
        return {"taps": 4 * LEAD_WORDS + 6 * self.products * plan.block * c.channels, "fields": 4 * LEAD_WORDS + fields}

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, other operand, constants of the sum, output), all flat."""
        return winograd_function(self)
