"""Sums of two int8 tensors, as TFLite scales them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ...passes._tvm import Constant, relax
from ...passes.graph.module_params import static_shape
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


def operands_of(call: relax.Call) -> tuple[Operand, Operand] | None:
    """The operands of a `qadd`; None where one is constant or is broadcast."""
    first, second = (static_shape(arg) for arg in call.args)
    if first != second or any(isinstance(arg, Constant) for arg in call.args):
        return None
    one, two = (
        Operand(*(int(call.attrs[f"input{i}_{name}"]) for name in ("zero_point", "multiplier", "shift"))) for i in (1, 2)
    )
    return one, two


@dataclass(frozen=True)
class TableSum:
    """A sum whose operands are shifted where their factor is 1/2, and looked up in a table where it is not.

    Attributes:
        first, second: The operands.
        left_shift: Of both, before they are multiplied.
        epilogue: How the sum becomes an output.
    """

    first: Operand
    second: Operand
    left_shift: int
    epilogue: Any

    @classmethod
    def of(cls, call: relax.Call, epilogue: Any) -> tuple[Self, np.ndarray] | None:
        """The sum that a `qadd` computes, and its constants; None where `operands_of` has none."""
        operands = operands_of(call)
        if operands is None:
            return None
        total = cls(*operands, int(call.attrs.left_shift), epilogue)
        return total, total.constants(int(call.attrs.output_multiplier), int(call.attrs.output_shift))

    @property
    def tables(self) -> int:
        """How many operands need a table."""
        return 2 - self.first.shifted - self.second.shifted

    def constants(self, multiplier: int, shift: int) -> np.ndarray:
        """What the function needs, flat int32.

        Args:
            multiplier, shift: The output's factor.

        Raises:
            NotRepresentable: The factor does not fit the fast arithmetic.
        """
        raise NotImplementedError

    def parts(self, shift: int, laid_out: Callable[[np.ndarray], np.ndarray]) -> tuple[int, list[np.ndarray]]:
        """What zero points of shifted operands add, and the tables; with tables it is part of the first, and 0.

        Args:
            shift: Of an operand whose factor is 1/2.
            laid_out: How a table lies in memory.
        """
        operands = (self.first, self.second)
        offset = -sum(operand.zero_point << shift for operand in operands if operand.shifted)
        tables = [laid_out(o.table(self.left_shift, self.epilogue.rounding)) for o in operands if not o.shifted]
        return (0, [tables[0] + offset, *tables[1:]]) if tables else (offset, [])
