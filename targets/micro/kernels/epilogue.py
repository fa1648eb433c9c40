"""From a 32-bit accumulator to an int8 output: requantization in a handful of instructions.

TFLite rounds twice: h = (acc * q + 2**30) >> 31, then a rounding shift to the right by r, halves away from zero. Kernels
accumulate 2 acc, which costs them nothing, so that h = SMMULR(2 acc, q); and the shift is SMMLAR(h', 2**(32 - r), zero point)
where h' is h, less one when negative. Both steps are exact. When everything negative is cut off at the zero point anyway
(ReLU with zero point -128), h' = h will do.

Single rounding is (acc * q + 2**(30 + r)) >> (31 + r). Since floors nest, that is the same second step after
h = (acc * q) >> 31 = SMMUL(2 acc, q), whatever the sign. Where all channels have the shift r = 1, one SMMLAR is enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from tvm import tirx

from ....passes.integer.requantization import requantization_of
from ...kernels.layers import NotRepresentable
from ...kernels.vectors import i32
from .words import multiply_high, multiply_high_add_rounded, multiply_high_rounded, qadd, ssat8


@dataclass(frozen=True)
class Epilogue:
    """How a layer's accumulators become its outputs.

    Attributes:
        rounding: "double" (TFLite) or "single" (one multiplication, one rounding).
        zero_point: Of the output.
        qmin: Least output.
        qmax: Greatest output.
        shared_shift: Whether, under single rounding, all factors have TFLite's exponent -1.
    """

    rounding: str
    zero_point: int
    qmin: int = -128
    qmax: int = 127
    shared_shift: bool = True

    @classmethod
    def of(cls, attrs: Any, shared_shift: bool = True) -> Self:
        """That of an operator, from its attributes."""
        record = requantization_of(attrs)
        return cls(record["rounding"], record["output_zero_point"], record["qmin"], record["qmax"], shared_shift)

    @property
    def kind(self) -> dict[str, Any]:
        """All of it that decides how many instructions it takes, by name."""
        cut = self.qmin >= self.zero_point or self.zero_point == -128
        limited = (self.qmin, self.qmax) != (-128, 127)
        return {"rounding": self.rounding, "shared_shift": self.shared_shift, "cut": cut, "limited": limited}

    @property
    def two_steps(self) -> bool:
        """Whether an accumulator is multiplied first and shifted then."""
        return self.rounding == "double" or not self.shared_shift

    @property
    def words(self) -> int:
        """Parameter words per channel."""
        return 2 if self.two_steps else 1

    @property
    def gain(self) -> int:
        """What the accumulators that `apply` takes are multiplied by."""
        return 2 if self.two_steps else 1

    @property
    def usual_shift(self) -> int:
        """An exponent that `parameters` always takes."""
        return -2 if self.two_steps else -1

    def check_range(self, weights: np.ndarray, bias: np.ndarray) -> None:
        """Prove that accumulators with their gain fit a word for every int8 input.

        Args:
            weights: (O, K) int8.
            bias: (O,) int32, the input's zero point taken out.

        Raises:
            NotRepresentable: They may not.
        """
        greatest = 128 * np.abs(weights.astype(np.int64)).sum(1) + np.abs(bias.astype(np.int64))
        if self.gain * greatest.max(initial=0) >= 1 << 31:
            raise NotRepresentable("accumulators beyond 30 bits")

    def parameters(self, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The parameter words.

        Args:
            multiplier: (O,) int32, q in [2**30, 2**31), or 0.
            shift: (O,) int32, TFLite's exponent: the real scale is q * 2**(shift - 31).

        Returns:
            (words, O) int32.

        Raises:
            NotRepresentable: The fast arithmetic has no room for one of them.
        """
        q, r = multiplier.astype(np.int64), -shift.astype(np.int64)
        if not self.two_steps:
            # The upper half of one product: the usual factors share the shift that makes it so.
            if ((r != 1) & (q != 0)).any():
                raise NotRepresentable("a factor with a shift of its own")
            return multiplier.astype(np.int32)[None]
        if self.rounding == "single":
            # Exact there: the product has the same digits, and is rounded once.
            spare = 30 - np.floor(np.log2(np.maximum(q, 1))).astype(np.int64)
            q, r = q << spare, r + spare
        if ((r < 2) & (q != 0)).any():
            raise NotRepresentable("a scale of 1/4 or more")
        second = np.where((q == 0) | (r > 32), 0, np.int64(1) << (32 - np.clip(r, 2, 32)))
        return np.stack([q, second]).astype(np.int32)

    def apply(self, acc: tirx.PrimExpr, parameters: list[tirx.PrimExpr]) -> tirx.PrimExpr:
        """The int8 output for `gain` times an accumulator that includes the bias."""
        if not self.two_steps:
            scaled = multiply_high_add_rounded(acc, parameters[0], self.zero_point)
        else:
            if self.rounding == "single":
                high = multiply_high(acc, parameters[0])
            else:
                high = multiply_high_rounded(acc, parameters[0])
                if not (self.qmin >= self.zero_point or self.zero_point == -128):
                    high = qadd(high, high >> i32(31))
            scaled = multiply_high_add_rounded(high, parameters[1], self.zero_point)
        if self.qmin > -128:
            scaled = tirx.max(scaled, i32(self.qmin))
        if self.qmax < 127:
            scaled = tirx.min(scaled, i32(self.qmax))
        return ssat8(scaled)
