"""Addition of two int8 tensors, exactly as TFLite computes it.

Each operand, less its zero point and shifted left by 20, is multiplied onto twice the larger of the two scales. For the
operand of the larger scale the factor is 1/2: a shift by 19. For the other one the product is a function of one byte: a table
of 256 words, which also takes in the zero point of the first. The sum is requantized as any accumulator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.sums import TableSum
from ...kernels.vectors import i32
from .epilogue import Epilogue
from .words import qadd

# mypy: ignore-errors


@dataclass(frozen=True)
class Sum(TableSum):
    """A sum for cores with the DSP extension; its constants are the tables, the zero points of shifted operands, and the
    epilogue's words."""

    epilogue: Epilogue

    @property
    def _shift(self) -> int:
        """Of an operand whose factor is 1/2, with the gain of the epilogue."""
        return self.left_shift - 2 + self.epilogue.gain

    def constants(self, multiplier: int, shift: int) -> np.ndarray:
        offset, tables = self.parts(self._shift, lambda table: self.epilogue.gain * table)
        words = self.epilogue.parameters(np.array([multiplier]), np.array([shift]))[:, 0]
        return np.concatenate([*tables, [offset], words]).astype(np.int32)

    @property
    def words(self) -> int:
        """Length of the constants."""
        return 256 * self.tables + 1 + self.epilogue.words

    def expression(self, constants, a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
        """The int8 sum of two int8 values.

        The epilogue's words are read from memory: of constants LLVM would make 64-bit shifts.
        """
        terms, table = [], 0
        for operand, value in ((self.first, a), (self.second, b)):
            if operand.shifted:
                terms.append(value.astype("int32") << i32(self._shift))
            else:
                terms.append(constants[256 * table + value.astype("uint8").astype("int32")])
                table += 1
        total = qadd(terms[0], terms[1])
        if not table:
            total = qadd(total, constants[0])
        start = 256 * self.tables + 1
        return self.epilogue.apply(total, [constants[start + i] for i in range(self.epilogue.words)])


def add(elements: int, total: Sum) -> tirx.PrimFunc:
    """The function of (a, b, constants, output), all flat; the output may lie where a lies."""
    unroll = 4 if elements % 4 == 0 else 1

    @T.prim_func(s_tir=True)
    def add_int8(
        a: T.Buffer((elements,), "int8"),
        b: T.Buffer((elements,), "int8"),
        constants: T.Buffer((total.words,), "int32"),
        out: T.Buffer((elements,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        for i in range(elements // unroll):
            for j in T.unroll(unroll):
                out[i * unroll + j] = total.expression(constants, a[i * unroll + j], b[i * unroll + j])

    return add_int8.with_attr("tvmcompress.workspaces", {"": 0}).with_attr("tvmcompress.inplace", 0)
