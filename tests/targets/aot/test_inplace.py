"""When a result may take the memory of an argument."""

# mypy: ignore-errors

from __future__ import annotations

import pytest
from tvm.script import tirx as T

from tvmcompress.targets.aot.arena import plan_arena
from tvmcompress.targets.aot.inplace import inplace_argument
from tvmcompress.targets.aot.program import Program, Step, Tensor


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


@T.prim_func(s_tir=True)
def read_at_the_start_of_a_sum(
    a: T.Buffer((8,), "int32"), b: T.Buffer((8, 3), "int32"), out: T.Buffer((8,), "int32")
):
    total = T.sblock_alloc_buffer((8,), "int32")
    for i, j in T.grid(8, 3):
        with T.sblock("rows"):
            x, y = T.axis.remap("SR", [i, j])
            with T.init():
                total[x] = a[7 - x]
            total[x] = total[x] + b[x, y]
    for i in range(8):
        with T.sblock("last"):
            x = T.axis.spatial(8, i)
            out[x] = a[x] + total[x]


@pytest.mark.parametrize(
    ("func", "expected"),
    [
        (same_index, 1),
        (other_index, None),
        (other_dtype, None),
        (read_before, None),
        (read_at_the_start_of_a_sum, None),
        (accumulated, None),
    ],
)
def test_inplace_argument(func, expected) -> None:
    assert inplace_argument(func) == expected


@pytest.mark.parametrize("whole", [True, False])
def test_only_what_takes_all_of_its_memory_is_written_in_place(whole) -> None:
    """A part does not start where the result would: an element would be written over another that is still to be read."""
    program = Program(inputs=["x"], outputs=["y"])
    for name, size in {"x": 128, "both": 128, "a": 96, "y": 96}.items():
        program.tensors[name] = Tensor(name, (size,), "int8")
    if not whole:
        program.views["a"] = ("both", 32)
    program.steps = [
        Step("first", ("x",), ("a" if whole else "both",), "first"),
        Step("second", ("a",), ("y",), "second", inplace="a"),
    ]
    arena = plan_arena(program, {})
    argument, result = (range(arena.offset(name), arena.offset(name) + 96) for name in ("a", "y"))
    assert (argument == result) == whole
    assert whole or not set(argument) & set(result)
