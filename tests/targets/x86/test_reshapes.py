"""Reshapes in a row, before functions are made of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.module_params import attach_params
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.reshapes import join_reshapes

SHAPES = [(24,), (2, 12), (2, 3, 4), (1, 24), (24, 1, 1), (4, 6)]


def module(shapes: list[tuple[int, ...]]) -> tvm.IRModule:
    """Each shape from the one before, and the last one's negative."""
    x = relax.Var("x", relax.TensorType(shapes[0], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            value = x
            for shape in shapes[1:]:
                value = builder.emit(relax.op.reshape(value, shape))
            result = builder.emit_output(relax.op.negative(value))
        builder.emit_func_output(result)
    return attach_params(builder.get(), {})


@given(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_at_most_one_is_left(shapes: list[tuple[int, ...]]) -> None:
    mod = join_reshapes(module(shapes))
    names = [value.op.name for _, value in bindings(mod["main"]) if isinstance(value, relax.Call)]
    assert names == ["relax.reshape"] * (shapes[0] != shapes[-1]) + ["relax.negative"]
    assert tuple(int(dim) for dim in mod["main"].ret_ty.shape) == shapes[-1]


def test_values_stay() -> None:
    x = np.arange(24, dtype="float32").reshape(2, 12)
    compiled = compile_module(module([(2, 12), (24,), (2, 3, 4), (4, 6)]))
    machine = relax.VirtualMachine(compiled.executable, tvm.cpu())
    np.testing.assert_array_equal(machine["main"](tvm.runtime.tensor(x)).numpy(), -x.reshape(4, 6))
    assert len([var for var in compiled.module.functions if "reshape" in var.name_hint]) <= 1
