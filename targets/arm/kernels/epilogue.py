"""From 32-bit accumulators to int8 outputs, by vectors of four.

TFLite rounds twice: h = (acc * q + 2**30) >> 31, which is SQRDMULH, then a rounding shift to the right by r, halves away from
zero. SRSHL rounds halves up; of h, less one where it is negative, that is the same. Where everything negative is cut off at
the zero point anyway (ReLU with zero point -128), h itself will do.

Single rounding is (acc * q + 2**(30 + r)) >> (31 + r). Since floors nest, that is SRSHL of h = (acc * q) >> 31, which is
SQDMULH, or without a shift SQRDMULH alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx

from ....passes.integer.requantize import multiply
from ...kernels.layers import NotRepresentable
from ...kernels.vectors import splat
from .neon import (
    halves,
    joined,
    low,
    lower_halves,
    narrow,
    narrow_unsigned,
    splat_bytes,
    sqadd_halves,
    sqdmulh,
    sqrdmulh,
    sqshl,
    srshl,
)

_SMALL = (1 << 15) - 2
"""Where halves are not rounded away from zero, results may be one off those that are computed here."""


@dataclass(frozen=True)
class Epilogue:
    """How a layer's accumulators become its outputs.

    Attributes:
        rounding: "double" (TFLite) or "single".
        zero_point: Of the output. It is a parameter of the code, which only knows whether it is -128.
        qmin, qmax: Limits of the output.
        left: Whether accumulators are shifted left first.
        right: Whether there is a shift to the right.
        unshifted: Whether some factors, not all, have none: a zero to the right has no halves to round.
        small: Whether no result leaves 16 bits before its zero point is added, so that its upper half may be dropped.
    """

    rounding: str
    zero_point: int
    qmin: int
    qmax: int
    left: bool = False
    right: bool = True
    unshifted: bool = False
    small: bool = False

    @classmethod
    def of(cls, rounding: str, zero_point: int, qmin: int, qmax: int, shift: np.ndarray) -> Epilogue:
        """The epilogue for factors with TFLite's exponents `shift`.

        Raises:
            NotRepresentable: The vector arithmetic cannot express it.
        """
        left, right = bool((shift > 0).any()), bool((shift < 0).any())
        unshifted = right and bool((shift >= 0).any())
        if rounding == "single" and (left or unshifted):
            raise NotRepresentable("under single rounding, factors of 1/2 or more beside smaller ones")
        if rounding not in ("single", "double"):
            raise NotRepresentable(f"rounding '{rounding}'")
        return cls(rounding, zero_point, qmin, qmax, left, right, unshifted)

    @property
    def keeps_sign(self) -> bool:
        """Whether negative values survive, so that their halves must be rounded away from zero."""
        return not (self.qmin >= self.zero_point or self.zero_point == -128)

    @property
    def words(self) -> int:
        """Parameter words per channel."""
        return 1 + self.left + self.right

    @property
    def lifted(self) -> bool:
        """Whether the zero point is -128: outputs are then bytes from 0 to 255, less 128."""
        return self.zero_point == -128

    @property
    def tail(self) -> np.ndarray:
        """What follows a layer's parameters: the zero point, unless it is known; int32."""
        return np.full(0 if self.lifted else 1, self.zero_point, np.int32)

    def zero(self, parameters: tirx.Buffer, at: int) -> tirx.PrimExpr | None:
        """The zero point from the `tail`, which starts at `at`, in eight 16-bit lanes."""
        return None if self.lifted else tirx.Broadcast(parameters[at].astype("int16"), 8)

    def parameters(self, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The parameter words: multiplier, then what is to be shifted left, and right; (words, O) int32."""
        rows = [multiplier]
        if self.left:
            rows.append(np.maximum(shift, 0))
        if self.right:
            rows.append(np.minimum(shift, 0))
        return np.stack(rows).astype(np.int32)

    def for_sums(self, least: np.ndarray, most: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> Epilogue:
        """This, for sums that are known to lie between two bounds.

        Args:
            least, most: Of each channel.
            multiplier, shift: The channels' factors.
        """
        ends = [multiply(np.asarray(end, np.int64), multiplier, shift, self.rounding) for end in (least, most)]
        return replace(self, small=bool(max(np.abs(end).max(initial=0) for end in ends) < _SMALL))

    def scaled(self, acc: tirx.PrimExpr, parameters: Sequence[tirx.PrimExpr]) -> tirx.PrimExpr:
        """int32x4 outputs, before the zero point."""
        if self.left:
            acc = sqshl(acc, parameters[1])
        if not self.right:
            return sqrdmulh(acc, parameters[0])
        shift = parameters[-1]
        if self.rounding == "single":
            return srshl(sqdmulh(acc, parameters[0]), shift)
        value = sqrdmulh(acc, parameters[0])
        if self.keeps_sign:
            value = value + ((value & shift if self.unshifted else value) >> splat(31))
        return srshl(value, shift)

    def bytes(self, values: Sequence[tirx.PrimExpr], zero: tirx.PrimExpr | None) -> tirx.PrimExpr:
        """One, two or four `scaled` vectors as int8x4, int8x8 or int8x16, with the zero point, in the limits."""
        padded = [*values, values[-1]] if len(values) == 1 else list(values)
        parts = []
        for first, second in zip(padded[::2], padded[1::2]):
            value = (lower_halves if self.small else halves)(first, second)
            parts.append(narrow_unsigned(value) if zero is None else narrow(sqadd_halves(value, zero)))
        result = joined(parts[0], parts[1], 8) if len(parts) == 2 else parts[0]
        lanes = 8 * len(parts)
        if self.lifted:
            result = result ^ splat_bytes(-128, lanes)
        if self.qmin > -128:
            result = tirx.max(result, splat_bytes(self.qmin, lanes))
        if self.qmax < 127:
            result = tirx.min(result, splat_bytes(self.qmax, lanes))
        return low(result, 4) if len(values) == 1 else result
