"""The operands of a sum of two int8 tensors, as TFLite scales them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...passes.integer.requantize import multiply

_HALF = (1 << 30, 0)
_BYTES = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int64)


@dataclass(frozen=True)
class Operand:
    """One operand of a sum.

    Attributes:
        zero_point: Its zero point.
        multiplier, shift: Its factor.
    """

    zero_point: int
    multiplier: int
    shift: int

    @property
    def shifted(self) -> bool:
        """Whether its factor is 1/2, so that a shift does."""
        return (self.multiplier, self.shift) == _HALF

    def table(self, left_shift: int, rounding: str) -> np.ndarray:
        """Its scaled values by the byte as unsigned, (256,) int64."""
        return multiply((_BYTES - self.zero_point) << left_shift, self.multiplier, self.shift, rounding)
