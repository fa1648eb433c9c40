"""Permutations that move nothing in memory become reshapes, all others stay."""

from __future__ import annotations

import pytest

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.targets.aot.permutations import PermutationsToReshapes


@pytest.mark.parametrize(
    ("shape", "axes", "result"),
    [
        ((2, 1, 3), [1, 0, 2], "reshape"),
        ((1, 4, 5, 1), [0, 3, 1, 2], "reshape"),
        ((2, 1, 3), [2, 1, 0], "permute_dims"),
        ((1, 4, 1), None, "reshape"),
        ((2, 3), None, "permute_dims"),
    ],
)
def test_what_becomes_of_it(shape: tuple[int, ...], axes: list[int] | None, result: str) -> None:
    x = relax.Var("x", relax.TensorType(shape, "int8"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.permute_dims(x, axes))
        builder.emit_func_output(out)
    main = PermutationsToReshapes()(builder.get())["main"]
    ((_, value),) = [(var, value) for var, value in bindings(main) if isinstance(value, relax.Call)]
    assert value.op.name == f"relax.{result}"
    order = axes if axes is not None else list(range(len(shape)))[::-1]
    assert [int(size) for size in main.ret_ty.shape] == [shape[axis] for axis in order]
