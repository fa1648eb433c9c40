"""When a result may take the memory of an argument."""

# mypy: ignore-errors

from __future__ import annotations

import pytest
from tvm.script import tirx as T

from tvmcompress.targets.aot.inplace import inplace_argument


@T.prim_func(s_tir=True)
def same_index(a: T.Buffer((8, 4), "int8"), b: T.Buffer((8, 4), "int8"), out: T.Buffer((8, 4), "int8")):
    for i, j in T.grid(8, 4):
        with T.sblock("sum"):
            x, y = T.axis.remap("SS", [i, j])
            out[x, y] = a[7 - x, y] + b[x, y]


@T.prim_func(s_tir=True)
def other_index(a: T.Buffer((8, 4), "int8"), out: T.Buffer((8, 4), "int8")):
    for i, j in T.grid(8, 4):
        with T.sblock("flip"):
            x, y = T.axis.remap("SS", [i, j])
            out[x, y] = a[7 - x, y]


@T.prim_func(s_tir=True)
def other_dtype(a: T.Buffer((8,), "int16"), out: T.Buffer((8,), "int8")):
    for i in range(8):
        with T.sblock("cast"):
            x = T.axis.spatial(8, i)
            out[x] = a[x].astype("int8")


@T.prim_func(s_tir=True)
def read_before(a: T.Buffer((8,), "int32"), out: T.Buffer((8,), "int32")):
    total = T.sblock_alloc_buffer((1,), "int32")
    for i in range(8):
        with T.sblock("total"):
            x = T.axis.reduce(8, i)
            with T.init():
                total[0] = 0
            total[0] = total[0] + a[x]
    for i in range(8):
        with T.sblock("share"):
            x = T.axis.spatial(8, i)
            out[x] = a[x] + total[0]


@T.prim_func(s_tir=True)
def accumulated(a: T.Buffer((8, 3), "int32"), b: T.Buffer((8,), "int32"), out: T.Buffer((8,), "int32")):
    for i, j in T.grid(8, 3):
        with T.sblock("rows"):
            x, y = T.axis.remap("SR", [i, j])
            with T.init():
                out[x] = b[x]
            out[x] = out[x] + a[x, y]


@pytest.mark.parametrize(
    ("func", "expected"),
    [(same_index, 1), (other_index, None), (other_dtype, None), (read_before, None), (accumulated, None)],
)
def test_inplace_argument(func, expected) -> None:
    assert inplace_argument(func) == expected
