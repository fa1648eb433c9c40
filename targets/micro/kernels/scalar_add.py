"""Addition of two int8 tensors for cores without the DSP extension, exactly as TFLite computes it; see `elementwise`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import NotRepresentable
from ...kernels.sums import TableSum
from .routines import add_routine
from .scalar_epilogue import ScalarEpilogue

# mypy: ignore-errors

_GREATEST = 1 << 30


@dataclass(frozen=True)
class ScalarSum(TableSum):
    """A sum; its constants are the epilogue's words and the number of elements, then a table or what zero points add.

    Attributes:
        elements: Of each tensor.
    """

    epilogue: ScalarEpilogue
    elements: int = 0

    @property
    def shift(self) -> int:
        """To the left, from an operand whose factor is 1/2 to twice its value."""
        return self.left_shift

    def constants(self, multiplier: int, shift: int) -> np.ndarray:
        (q,), (right,) = self.epilogue.factor(np.array([multiplier]), np.array([shift]))
        offset, tables = self.parts(self.shift, lambda table: 2 * table)
        if len(tables) > 1:
            raise NotRepresentable("a sum with two tables")
        last = tables[0] if tables else np.array([offset])
        if np.abs(last).max() + (1 + (not tables)) * (128 << self.shift) >= _GREATEST:
            raise NotRepresentable("a sum beyond 30 bits")
        rounding = (2 * self.epilogue.zero_point + 1) << int(right) >> 1
        head = [q, right, rounding, self.epilogue.qmin, self.epilogue.qmax, self.elements]
        return np.concatenate([head, last]).astype(np.int32)

    def function(self) -> tirx.PrimFunc:
        """The function of (a, b, constants, output), all flat; the output may lie where a lies."""
        size, table = self.elements, self.tables > 0
        name = add_routine(not self.epilogue.long, table, self.epilogue.finish, self.shift)
        swapped = table and self.first.shifted

        def call(a, b, constants, out):
            operands = (b, a) if swapped else (a, b)
            return T.evaluate(T.call_extern("int32", name, *(T.address_of(t[0]) for t in (*operands, out, constants))))

        @T.prim_func(s_tir=True)
        def add_int8(
            a: T.Buffer((size,), "int8"),
            b: T.Buffer((size,), "int8"),
            constants: T.Buffer((6 + (256 if table else 1),), "int32"),
            out: T.Buffer((size,), "int8"),
        ):
            T.func_attr({"tirx.noalias": True})
            call(a, b, constants, out)

        return add_int8.with_attr("tvmcompress.workspaces", {"": 0}).with_attr("tvmcompress.inplace", 0)
