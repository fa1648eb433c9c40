"""Convolution and pointwise convolution for cores with the DSP extension.

The output is walked in panels of two or three pixels. A panel's receptive fields are unpacked once, from bytes to halfwords,
and then multiplied with the weights of all output channels, two channels at a time: as much as the fourteen free registers
hold. Where the fields are taken from depends on the layer:

- *direct*: a 1x1 kernel without padding reads the input as it lies;
- *strip*: the kernel's rows are copied to a strip padded with the zero point, one output row at a time;
- *image*: the whole padded input is copied once, for maps too narrow to fill a panel with one row.

Strategy and layout follow from counting instructions: per word of four k and three pixels the inner loop takes 12 SMLAD,
2 SXTB16 and 4 LDRD for 24 multiply-accumulates with byte planes (see `packing`), 12 SMLAD and 5 LDRD with int16 weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx

from ...kernels.layers import ConvolutionShape
from .elementwise import Sum
from .epilogue import Epilogue
from .packing import byte_planes, int16_words, pair_parameters
from .panel_function import LEAD_WORDS, panel_function
from .panel_source import PanelSource

# mypy: ignore-errors

_STACK_BYTES = 264
"""Panels, and outputs that join a sum, live on the stack up to this size."""

_LONGEST_UNPACKING = 2
_SLACK = 4
"""Bytes behind the rows of copies."""


@dataclass(frozen=True)
class Convolution(ConvolutionShape):
    """The shape of a convolution, and how its accumulators become outputs."""

    epilogue: Epilogue


@dataclass(frozen=True)
class PanelPlan:
    """The choices of the template.

    Attributes:
        source: "direct", "strip" or "image".
        pixels: Pixels of a panel, 2 or 3.
        unroll: Words of four k in one round of the inner loop.
        halves: Whether a panel has (k0, k2) of all pixels before (k1, k3), which holds fewer weights at a time but leaves
            more loads single.
        int16_weights: Whether weights are int16 in flash.
        late_bias: Whether the bias of the first channel of a pair is added at the end, because 256 times it and the sum
            would not fit a word; of byte planes only.
        routine: Whether a routine multiplies the panel, see `routines`; with `halves`, and without `late_bias`. A sum is made
            of its outputs then, which are kept beside the operand.
    """

    source: str
    pixels: int
    unroll: int
    halves: bool = False
    int16_weights: bool = False
    late_bias: bool = False
    routine: bool = False


class PanelConvolution:
    """One convolution by one plan: the packed constants and the function.

    With `residual` the convolution's output is the first operand of a sum, whose second one is a tensor of the output's
    shape; the result may lie where that tensor lies. `adds` is whether it is one, where it is not known yet.
    """

    def __init__(self, conv: Convolution, plan: PanelPlan, residual: Sum | None = None, adds: bool = False) -> None:
        self.conv, self.plan, self.residual = conv, plan, residual
        self.adds = adds or residual is not None
        row = conv.kernel[1] * conv.channels
        self.row_words = row // 4
        self.rest = row % 4
        # Bytes at the end of the kernel's rows that do not fill a word share words.
        self.rest_words = -(-conv.kernel[0] * self.rest // 4)
        used = conv.kernel[0] * self.row_words + self.rest_words
        self.words = -(-used // plan.unroll) * plan.unroll
        self.used_words = used

    @property
    def row_unroll(self) -> int:
        """Words of a row that are unpacked in one round."""
        return max(n for n in range(1, _LONGEST_UNPACKING + 1) if self.row_words % n == 0)

    @cached_property
    def source(self) -> PanelSource:
        """Where receptive fields are taken from."""
        return PanelSource(self.conv, self.plan.source, self.plan.pixels, _SLACK)

    @property
    def panel_bytes(self) -> int:
        """Bytes of an unpacked panel."""
        return 8 * self.words * self.plan.pixels + 4 * LEAD_WORDS

    @property
    def operand_bytes(self) -> int:
        """Bytes of the outputs of a panel where a routine makes them, and a sum follows."""
        return self.plan.pixels * self.conv.out_channels if self.plan.routine and self.adds else 0

    @property
    def workspaces(self) -> dict[str, int]:
        """Bytes of the workspaces by name."""
        # Scalar accesses only, so what is small may stay on the stack; the source is filled by vectors.
        sizes = {"panel": self.panel_bytes, "operand": self.operand_bytes}
        large = {name: size for name, size in sizes.items() if size > _STACK_BYTES}
        return {**large, **({"source": self.source.bytes} if self.source.copied else {})}

    def constants(
        self, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the function reads, flat int32: the weights, and what the epilogue needs behind trip counts.

        Args:
            weights: (O, KH, KW, C) int8.
            bias, multiplier, shift: (O,) int32.
        """
        packed, parameters = self._weights(weights), self._parameters(bias, multiplier, shift)
        if not self.plan.routine:
            return np.concatenate([np.zeros(LEAD_WORDS, np.int32), packed.ravel()]), parameters
        # By pairs of channels: what sums start from, the weights, the epilogue's words.
        pairs = parameters[2:].reshape(len(packed), -1)
        words = packed.transpose(0, 1, 3, 2) if self.plan.int16_weights else packed
        stream = np.concatenate([pairs[:, :2], words.reshape(len(packed), -1), pairs[:, 2:]], axis=1).ravel()
        counts = np.array([self.rounds, stream.nbytes, self.conv.epilogue.zero_point], np.int32)
        return stream, np.concatenate([parameters[:2], counts])

    @property
    def rounds(self) -> int:
        """Of the inner loop."""
        return self.words // self.plan.unroll

    def _weights(self, weights: np.ndarray) -> np.ndarray:
        """Pack (O, KH, KW, C) int8 weights by pairs of channels, int32."""
        c = self.conv
        rows = weights.reshape(c.out_channels, c.kernel[0], -1)
        full = rows[:, :, : 4 * self.row_words].reshape(c.out_channels, -1)
        rest = rows[:, :, 4 * self.row_words :].reshape(c.out_channels, -1)
        flat = np.zeros((c.out_channels, 4 * self.words), np.int8)
        flat[:, : full.shape[1]] = full
        flat[:, full.shape[1] : full.shape[1] + rest.shape[1]] = rest
        return int16_words(flat, c.epilogue.gain) if self.plan.int16_weights else byte_planes(flat)

    def _parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Pack what the epilogue needs, flat int32, behind the trip counts of the inner loop and of that which unpacks.

        LLVM hoists, spills and unrolls when it knows a trip count; read from memory it stays unknown.
        """
        words = self.conv.epilogue.parameters(multiplier, shift)
        form = "wide" if self.plan.int16_weights else "late" if self.plan.late_bias else "planes"
        packed = pair_parameters(bias, words, form, self.conv.epilogue.gain).ravel()
        head = [self.rounds, self.row_words // self.row_unroll]
        return np.concatenate([np.array(head, np.int32), packed])

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, other operand, constants of the sum, output), all flat.

        Without a residual the other operand and the constants are not read: any tensor will do.
        """
        return panel_function(self)

    @property
    def inplace_pointwise(self) -> bool:
        """Whether the output may lie where the input lies: every pixel is unpacked before it is written."""
        c = self.conv
        return (
            self.plan.source == "direct"
            and c.strides == (1, 1)
            and (c.out_height, c.out_width) == (c.height, c.width)
            and c.out_channels == c.channels
        )
