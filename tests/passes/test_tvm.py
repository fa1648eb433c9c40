"""What is changed of TVM from outside does what TVM's own does."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from tvm.script import ir as I
from tvm.script import tirx as T

from tvmcompress.passes import _tvm


def test_frames_are_those_of_inspect() -> None:
    def called(stack: Callable[[], list[inspect.FrameInfo]]) -> list[inspect.FrameInfo]:
        return stack()

    ours, theirs = called(_tvm._stack), called(inspect.stack)
    assert [frame.frame for frame in ours[1:]] == [frame.frame for frame in theirs[1:]]
    assert [frame.filename for frame in ours] == [frame.filename for frame in theirs]
    assert [frame.function for frame in ours] == [frame.function for frame in theirs]
    for own, other in zip(ours[:3], theirs[:3], strict=True):
        assert (own.code_context, own.index) == (other.code_context, other.index)
    assert ours[0].lineno == theirs[0].lineno
    assert {frame.code_context is None for frame in ours[3:]} == {True}


def test_functions_of_a_module_and_variables_of_annotations() -> None:
    size = 4

    @I.ir_module
    class Module:
        @T.prim_func
        def first(a: T.Buffer((size,), "float32")) -> None:
            for i in range(size):
                a[i] = T.float32(1)

        @T.prim_func(private=True)
        def second(a: T.Buffer((size + 1,), "float32")) -> None:
            for i in range(size + 1):
                a[i] = T.float32(2)

    assert sorted(var.name_hint for var in Module.get_global_vars()) == ["first", "second"]

    @T.prim_func
    def alone(a: T.Buffer((size,), "float32")) -> None:
        for i in range(size):
            a[i] = T.float32(1)

    assert f"T.Buffer(({size},)" in alone.script()
