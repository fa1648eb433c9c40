"""From four 32-bit accumulators to four outputs with Helium.

TFLite rounds twice: h = (acc * q + 2**30) >> 31, which is VQRDMULH, then a rounding shift to the right by r, halves
away from zero. VQRDMLASH of h, less one where it is negative, with 2**(31 - r) is that shift, and adds the zero point. Where
everything negative is cut off at the zero point anyway (ReLU with zero point -128), h itself will do.

Single rounding is (acc * q + 2**(30 + r)) >> (31 + r). Since floors nest, that is the same shift, halves up, of
h = (acc * q) >> 31, which is VQDMULH.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx

from ...kernels.layers import NotRepresentable
from ...kernels.vectors import splat
from .epilogue import Epilogue
from .helium_words import narrowed_words, saturated, vqdmulh, vqrdmlash, vqrdmulh


@dataclass(frozen=True)
class HeliumEpilogue(Epilogue):
    """How a layer's accumulators become its outputs, by vectors of four."""

    @property
    def keeps_sign(self) -> bool:
        """Whether negative values survive, so that their halves must be rounded away from zero."""
        return not (self.qmin >= self.zero_point or self.zero_point == -128)

    @property
    def words(self) -> int:
        """Parameter words per channel."""
        return 2

    def parameters(self, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The parameter words, (words, O) int32; arguments and errors as of `Epilogue.parameters`."""
        q, r = multiplier.astype(np.int64), -shift.astype(np.int64)
        if ((r < 1) & (q != 0)).any():
            raise NotRepresentable("a scale of 1/2 or more")
        second = np.where(q == 0, 0, np.int64(1) << (31 - np.clip(r, 1, 31)))
        return np.stack([q, second]).astype(np.int32)

    def scaled(self, acc: tirx.PrimExpr, parameters: list[tirx.PrimExpr]) -> tirx.PrimExpr:
        """int32x4 outputs before they are limited."""
        return vqrdmlash(self.high(acc, parameters[0]), parameters[1], self.zero_point)

    def high(self, acc: tirx.PrimExpr, multiplier: tirx.PrimExpr) -> tirx.PrimExpr:
        """What is left to be shifted to the right, halves up."""
        if self.rounding == "single":
            return vqdmulh(acc, multiplier)
        high = vqrdmulh(acc, multiplier)
        return high + (high >> splat(31)) if self.keeps_sign else high

    def limited(self, acc: tirx.PrimExpr, parameters: list[tirx.PrimExpr]) -> tirx.PrimExpr:
        """int32x4 outputs."""
        value = self.scaled(acc, parameters)
        return tirx.min(tirx.max(value, splat(self.qmin)), splat(self.qmax))

    def words_of(self, value: tirx.PrimExpr) -> tirx.PrimExpr:
        """int32x4 outputs of which the low bytes count, for what `scaled` makes."""
        if (self.qmin, self.qmax) == (-128, 127):
            return narrowed_words(value)
        return tirx.min(tirx.max(value, splat(self.qmin)), splat(self.qmax))

    def apply(self, acc: tirx.PrimExpr, parameters: list[tirx.PrimExpr]) -> tirx.PrimExpr:
        """int8x4 outputs for int32x4 accumulators that include the bias."""
        if (self.qmin, self.qmax) == (-128, 127):
            return saturated(self.scaled(acc, parameters))
        return self.limited(acc, parameters).astype("int8x4")


def block_parameters(bias: np.ndarray, parameters: np.ndarray, channels: int = 4) -> np.ndarray:
    """Per block of channels: the biases, then each word of the epilogue.

    Args:
        bias: (O,) int32.
        parameters: (words, O) int32 of the epilogue.
        channels: Of a block.

    Returns:
        (ceil(O / channels), (1 + words) * channels) int32.
    """
    rows = np.concatenate([bias.astype(np.int32)[None], parameters.astype(np.int32)])
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % channels)))
    blocks = rows.reshape(len(rows), -1, channels).transpose(1, 0, 2)
    return np.ascontiguousarray(blocks.reshape(blocks.shape[0], -1))


__all__ = ["HeliumEpilogue", "NotRepresentable", "block_parameters"]
