"""Planes of images put together: every shape and dtype, and where the function is used."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tests.targets.x86.kernels.test_kernels import CPUS
from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.host import tvm_target
from tvmcompress.targets.x86.kernels.planes import planes_function
from tvmcompress.targets.x86.lower import lower, prim_funcs


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2], CPUS[4]])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 2, 1, 8), (1, 4, 5, 7), (1, 3, 33, 3), (1, 3, 2, 9)])
def test_every_element_is_in_its_place(cpu, dtype, shape) -> None:
    function = planes_function(shape, dtype).with_attr("global_symbol", "main")
    library = tvm.tirx.build(tvm.IRModule({"main": function}), target=tvm_target(cpu, 1))
    x = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype)
    result = tvm.runtime.tensor(np.zeros((1, *shape[2:], shape[1]), dtype))
    library["main"](tvm.runtime.tensor(x), result)
    np.testing.assert_array_equal(result.numpy(), x.transpose(0, 2, 3, 1))


def permuted(shape, axes, twice=False):
    """A module that permutes its input, or its sum with itself, and multiplies the result."""
    x, w = relax.Var("x", relax.TensorType(shape, "float32")), relax.Var("w", relax.TensorType((1,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w], attrs={"num_input": 1}):
        with builder.dataflow():
            value = builder.emit(relax.op.matmul(x, builder.emit(relax.op.permute_dims(x, [0, 1, 3, 2])))) if twice else x
            value = builder.emit(relax.op.permute_dims(value, axes))
            result = builder.emit_output(builder.emit(relax.op.multiply(value, w)))
        builder.emit_func_output(result)
    return attach_params(builder.get(), {"w": np.full(1, 2, "float32")})


@pytest.mark.parametrize(
    ("shape", "axes", "twice", "used"),
    [
        ((1, 3, 8, 8), [0, 2, 3, 1], False, True),
        ((1, 3, 8, 8), [0, 2, 3, 1], True, False),  # of what the model computes
        ((1, 3, 8, 8), [0, 3, 2, 1], False, False),
        ((2, 3, 8, 8), [0, 2, 3, 1], False, False),
        ((1, 5, 8, 8), [0, 2, 3, 1], False, False),
        ((1, 3, 1, 7), [0, 2, 3, 1], False, False),
        ((1, 3, 8, 8), None, False, False),
    ],
)
def test_where_it_is_used(shape, axes, twice, used) -> None:
    mod = permuted(shape, axes, twice)
    assert any("planes" in name for name in prim_funcs(lower(mod))) == used
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    got = relax.VirtualMachine(compile_module(mod).executable, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()
    value = x @ x.transpose(0, 1, 3, 2) if twice else x
    np.testing.assert_allclose(got, 2 * value.transpose(axes), rtol=1e-5, atol=1e-5)
