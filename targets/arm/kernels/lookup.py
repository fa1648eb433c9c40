"""A function of one byte, by a table of 256 bytes in sixteen registers.

TBL takes an index into 64 bytes and gives zero where it is greater; TBX leaves the result as it was there. So four lookups,
each with the index moved by 64, find every value.
"""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, vector_start
from .neon import splat_bytes, tbl, tbx

# mypy: ignore-errors


def pack_table(table: np.ndarray) -> np.ndarray:
    """The table of `qlut`, from the least byte to the greatest, in the order of bytes without a sign; int8 (256,)."""
    return np.roll(table, -128)


def lookup(elements: int) -> tirx.PrimFunc:
    """The function of (x, table, output), all flat.

    Args:
        elements: At least 16.
    """

    def found(x, table, at):
        value = x.vload([at], "int8x16")
        parts = [[table.vload([64 * i + VECTOR * j], "int8x16") for j in range(4)] for i in range(4)]
        result = tbl(parts[0], value)
        for i in range(1, 4):
            moved = value - splat_bytes(64 * i - (256 if i > 1 else 0), VECTOR)
            result = tbx(result, parts[i], moved)
        return result

    @T.prim_func(s_tir=True)
    def lut(x: T.Buffer((elements,), "int8"), table: T.Buffer((256,), "int8"), out: T.Buffer((elements,), "int8")):
        T.func_attr({"tirx.noalias": True})
        for i in parallel(-(-elements // VECTOR)):
            out[T.ramp(vector_start(i, elements), 1, VECTOR)] = found(x, table, vector_start(i, elements))

    lut = lut.with_attr("tvmcompress.workspaces", {"": 0})
    # The last vector reads again what may have been overwritten.
    return lut if elements % VECTOR else lut.with_attr("tvmcompress.inplace", 0)
