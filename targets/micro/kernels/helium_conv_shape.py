"""What a convolution with Helium is of, and the choices that its template has."""

from __future__ import annotations

from dataclasses import dataclass

from .helium_epilogue import HeliumEpilogue
from .panel import Convolution


@dataclass(frozen=True)
class HeliumConvolution(Convolution):
    """The shape of a convolution, its accumulators finished by vectors."""

    epilogue: HeliumEpilogue

    band = Convolution.band_of

    @property
    def run(self) -> int:
        """Bytes of a kernel's row."""
        return self.kernel[1] * self.channels

    @property
    def pointwise(self) -> bool:
        """Whether every output pixel is made of one input pixel."""
        rows, columns = (self.out_height - 1) * self.strides[0], (self.out_width - 1) * self.strides[1]
        return self.kernel == (1, 1) and not (self.top or self.left) and rows < self.height and columns < self.width


@dataclass(frozen=True)
class HeliumPlan:
    """The choices of the template.

    Attributes:
        source: "direct", "paired", "band" or "columns".
        rows: Output rows made from one band; divides the output's rows.
        runs: Runs of a field that one round of the inner loop takes; divides the runs.
        unroll: Vectors of a run in one round.
        one_scale: Whether all channels share one factor, whose words then stand once at the head.
        pixels: Pixels that are made at a time: 2 by four channels, or 4 by two.
    """

    source: str
    rows: int
    runs: int
    unroll: int
    one_scale: bool = False
    pixels: int = 2
