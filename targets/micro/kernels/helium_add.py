"""Addition of two int8 tensors with Helium, exactly as TFLite computes it; see `elementwise` for the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.sums import TableSum
from ...kernels.vectors import splat
from .helium_epilogue import HeliumEpilogue
from .helium_words import gather_words

# mypy: ignore-errors


@dataclass(frozen=True)
class HeliumSum(TableSum):
    """A sum; its constants are the zero points of shifted operands, the epilogue's words, and the tables."""

    epilogue: HeliumEpilogue

    @property
    def words(self) -> int:
        """Length of the constants."""
        return 4 + 256 * self.tables

    def constants(self, multiplier: int, shift: int) -> np.ndarray:
        # From the least byte to the greatest.
        offset, tables = self.parts(self.left_shift - 1, lambda table: np.concatenate([table[128:], table[:128]]))
        words = self.epilogue.parameters(np.array([multiplier]), np.array([shift]))[:, 0]
        head = np.zeros(4, np.int64)
        head[0] = offset
        head[1 : 1 + len(words)] = words
        return np.concatenate([head, *tables]).astype(np.int32)

    def apply(self, a: tirx.PrimExpr, b: tirx.PrimExpr, constants: tirx.Buffer) -> tirx.PrimExpr:
        """The int8x4 sum of two int8 values given as int32x4."""
        return self.epilogue.apply(self._total(a, b, constants), self._parameters(constants))

    def scaled(self, a: tirx.PrimExpr, b: tirx.PrimExpr, constants: tirx.Buffer) -> tirx.PrimExpr:
        """The same as int32x4, before it is limited."""
        return self.epilogue.scaled(self._total(a, b, constants), self._parameters(constants))

    def _parameters(self, constants: tirx.Buffer) -> list[tirx.PrimExpr]:
        return [tirx.Broadcast(constants[1 + i], 4) for i in range(self.epilogue.words)]

    def _total(self, a: tirx.PrimExpr, b: tirx.PrimExpr, constants: tirx.Buffer) -> tirx.PrimExpr:
        terms, table = [], 0
        for operand, value in ((self.first, a), (self.second, b)):
            if operand.shifted:
                terms.append(value << splat(self.left_shift - 1))
            else:
                terms.append(gather_words(constants, 4 + 256 * table + 128, value))
                table += 1
        total = terms[0] + terms[1]
        if not table:
            total = total + tirx.Broadcast(constants[0], 4)
        return total


def add(elements: int, total: HeliumSum) -> tirx.PrimFunc:
    """The function of (a, b, constants, output), all flat; the output may lie where a lies.

    Args:
        elements: A multiple of 4.
        total: The sum.
    """

    @T.prim_func(s_tir=True)
    def add_int8(
        a: T.Buffer((elements,), "int8"),
        b: T.Buffer((elements,), "int8"),
        constants: T.Buffer((total.words,), "int32"),
        out: T.Buffer((elements,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        for i in range(elements // 4):
            out[T.ramp(i * 4, 1, 4)] = total.apply(
                a.vload([i * 4], "int8x4").astype("int32x4"), b.vload([i * 4], "int8x4").astype("int32x4"), constants
            )

    return add_int8.with_attr("tvmcompress.workspaces", {"": 0}).with_attr("tvmcompress.inplace", 0)
