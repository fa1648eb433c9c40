"""Where convolutions by panels take the receptive fields of their pixels from, and how they walk over these."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from ...kernels.layers import ConvolutionShape

# mypy: ignore-errors


@dataclass(frozen=True)
class PanelSource:
    """The source of a convolution's receptive fields, read a panel of some pixels at a time.

    Attributes:
        conv: The convolution.
        kind: "direct": the input, as it lies. "strip": the kernel's rows for one output row, copied and padded with the zero
            point. "image": the whole input, copied and padded.
        pixels: Of a panel.
        slack: Bytes behind each copied row, which loads may reach into.
    """

    conv: ConvolutionShape
    kind: str
    pixels: int
    slack: int = 0

    @property
    def copied(self) -> bool:
        """Whether there is a copy."""
        return self.kind != "direct"

    @property
    def walk(self) -> int:
        """Pixels that the panels of one walk cover: a row in a strip, the whole map otherwise."""
        c = self.conv
        return c.out_width if self.kind == "strip" else c.out_height * c.out_width

    @property
    def walks(self) -> int:
        """How many walks there are."""
        return self.conv.out_height if self.kind == "strip" else 1

    @property
    def panels(self) -> int:
        """Of one walk."""
        return -(-self.walk // self.pixels)

    @property
    def pitch(self) -> int:
        """Bytes of a row of the copy, or of the input itself."""
        c = self.conv
        if not self.copied:
            return c.width * c.channels
        covered = (c.out_width - 1) * c.strides[1] + c.kernel[1]
        return -(-max(covered, c.left + c.width) * c.channels // 4) * 4 + self.slack

    @property
    def rows(self) -> int:
        """Rows of a copy."""
        c = self.conv
        return c.kernel[0] if self.kind == "strip" else (c.out_height - 1) * c.strides[0] + c.kernel[0]

    @property
    def bytes(self) -> int:
        """Of the copy; 0 where there is none."""
        return self.rows * self.pitch if self.copied else 0

    def pixel(self, panel: tirx.PrimExpr, px: int) -> tirx.PrimExpr:
        """A pixel of a panel, counted over the walk.

        The last panel repeats its last pixel rather than earlier ones, which may be overwritten by now.
        """
        position = panel * self.pixels + px
        return tirx.min(position, self.walk - 1) if self.walk % self.pixels else position

    def base(self, position: tirx.PrimExpr) -> tirx.PrimExpr:
        """Offset of a pixel's receptive field in the source."""
        c = self.conv
        if self.kind == "strip":
            return position * (c.strides[1] * c.channels)
        if not self.copied and c.strides == (1, 1):
            return position * c.channels
        down, across = tirx.floordiv(position, c.out_width), tirx.floormod(position, c.out_width)
        return down * (c.strides[0] * self.pitch) + across * (c.strides[1] * c.channels)
