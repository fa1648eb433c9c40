"""From a 32-bit accumulator to an int8 output on cores without the DSP extension.

TFLite rounds twice: h = (2 acc * q + 2**31) >> 32, then a rounding shift to the right by r, halves away from zero, which is
(h' + 2**(r - 1)) >> r where h' is h, less one when negative. When everything negative is cut off at the zero point anyway, h'
= h will do. The zero point joins before the shift: ((2 zero point + 1) << r) >> 1 is added in place of 2**(r - 1). Single
rounding is the same second step after h = (2 acc * q) >> 32.

Armv7-M has the product in one instruction (SMULL). Armv6-M multiplies words to words alone, so there the upper half is put
together from four products of halves, a = 2**16 ah + al and q = 2**16 qh + ql:

    m = al * qh + (al * ql >> 16) + 2**15
    (a * q + 2**31) >> 32  =  ah * qh + (m >> 16) + ((ah * ql + (m & 0xFFFF)) >> 16)

al, ql and al * ql are taken as unsigned; m is at most 2**31 - 1, and the rest fits words for accumulators below 2**29. Routines
do all of this, see `scalar_assembly`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ....passes.integer.requantization import requantization_of
from ...kernels.layers import NotRepresentable

WORDS = 3
"""Of parameters per channel: twice the bias, multiplier, shift to the right."""
_GREATEST = 1 << 29
_SHIFTS = (1, 22)
"""Between which there is room for the zero point."""


@dataclass(frozen=True)
class ScalarEpilogue:
    """How a layer's accumulators become its outputs.

    Attributes:
        rounding: "double" (TFLite) or "single" (one multiplication, one rounding).
        zero_point: Of the output.
        qmin: Least output.
        qmax: Greatest output.
        long: Whether the core multiplies words to two words.
    """

    rounding: str
    zero_point: int
    qmin: int
    qmax: int
    long: bool

    @classmethod
    def of(cls, attrs: Any, long: bool) -> Self:
        """That of an operator, from its attributes."""
        record = requantization_of(attrs)
        return cls(record["rounding"], record["output_zero_point"], record["qmin"], record["qmax"], long)

    @property
    def cut(self) -> bool:
        """Whether everything negative becomes the least output."""
        return self.qmin >= self.zero_point or self.zero_point == -128

    @property
    def kind(self) -> dict[str, Any]:
        """All of it that decides how many instructions it takes, by name."""
        limited = (self.qmin, self.qmax) != (-128, 127)
        return {"rounding": self.rounding, "cut": self.cut, "limited": limited}

    @property
    def finish(self) -> str:
        """The routines' name for it."""
        form = "single" if self.rounding == "single" else "cut" if self.cut else "signed"
        return form if (self.qmin, self.qmax) == (-128, 127) else f"{form}_within"

    @property
    def usual_shift(self) -> int:
        """An exponent that `parameters` always takes."""
        return -2

    def parameters(self, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The parameter words, and proof that every int8 input gives sums that fit.

        Args:
            weights: (O, K) int8.
            bias: (O,) int32, the input's zero point taken out.
            multiplier: (O,) int32, not negative.
            shift: (O,) int32, TFLite's exponent: the real scale is q * 2**(shift - 31).

        Returns:
            (O, WORDS) int32.

        Raises:
            NotRepresentable: There is no room for a sum or a shift.
        """
        greatest = 128 * np.abs(weights.astype(np.int64)).sum(1) + np.abs(bias.astype(np.int64))
        if greatest.max(initial=0) >= _GREATEST:
            raise NotRepresentable("accumulators beyond 29 bits")
        return np.stack([2 * bias, *self.factor(multiplier, shift)], axis=1).astype(np.int32)

    def factor(self, multiplier: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Multipliers and shifts to the right, (O,) each.

        Raises:
            NotRepresentable: There is no room for a shift.
        """
        right = np.where(multiplier == 0, _SHIFTS[0], -shift.astype(np.int64))
        if right.min(initial=_SHIFTS[0]) < _SHIFTS[0] or right.max(initial=0) > _SHIFTS[1]:
            raise NotRepresentable("a scale beyond 1/2 or below 2**-23")
        return multiplier, right
