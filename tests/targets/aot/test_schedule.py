"""What schedules for ahead-of-time builds look like."""

# TVMScript's annotations are calls, which are no types to mypy.
# mypy: disable-error-code="valid-type"

from __future__ import annotations

import pytest
from tvm.script import tirx as T

from tvmcompress.passes._tvm import tirx
from tvmcompress.targets.aot.schedule import FLOAT_REGISTERS, NEON, Registers, schedule


def _double(n: int) -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def double(x: T.Buffer((3, n), "float32"), y: T.Buffer((3, n), "float32")) -> None:
        for i, j in T.grid(3, n):
            with T.sblock("double"):
                v, w = T.axis.remap("SS", [i, j])
                y[v, w] = x[v, w] * T.float32(2)

    return double


@pytest.mark.parametrize(("registers", "length", "vectors"), [(NEON, 32, True), (NEON, 3, False), (FLOAT_REGISTERS, 32, False)])
def test_whole_vectors_only(registers: Registers, length: int, vectors: bool) -> None:
    assert ("T.vectorized" in schedule(_double(length), registers).script()) == vectors
