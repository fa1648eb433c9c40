"""Addition of two int8 tensors, exactly as TFLite computes it, through tables.

Each operand is shifted left by 20 and multiplied by its own scale before the sum: a function of one byte, so two tables of
256 words replace two requantizations per element. The sum is requantized as any accumulator.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from .epilogue import Epilogue
from .words import i32

# mypy: ignore-errors


def add_tables(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The two tables, indexed by the byte as unsigned, flat int32.

    Args:
        first, second: (256,) int32, the scaled values of -128 .. 127.
    """
    order = np.arange(256).astype(np.uint8).view(np.int8).astype(np.int64) + 128
    return np.concatenate([first[order], second[order]]).astype(np.int32)


def sum_expression(epilogue: Epilogue, table, parameters, a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """The int8 sum of two int8 values."""
    total = table[a.astype("uint8").astype("int32")] + table[b.astype("uint8").astype("int32") + 256]
    return epilogue.apply(total, [i32(int(word)) for word in parameters])


def add(elements: int, epilogue: Epilogue, parameters: np.ndarray) -> tirx.PrimFunc:
    """The function of (a, b, tables, output), all flat; the output may lie where a lies.

    Args:
        elements: How many.
        epilogue: How the sum becomes an output.
        parameters: (words,) int32 of the epilogue.
    """
    unroll = 4 if elements % 4 == 0 else 1

    @T.prim_func(s_tir=True)
    def add_int8(
        a: T.Buffer((elements,), "int8"),
        b: T.Buffer((elements,), "int8"),
        table: T.Buffer((512,), "int32"),
        out: T.Buffer((elements,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        for i in range(elements // unroll):
            for j in T.unroll(unroll):
                out[i * unroll + j] = sum_expression(epilogue, table, parameters, a[i * unroll + j], b[i * unroll + j])

    return add_int8.with_attr("tvmcompress.workspaces", {"": 0}).with_attr("tvmcompress.inplace", 0)
