"""Functions of one byte by table: every byte, any number of elements, against NumPy."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tests.targets.x86.kernels.test_kernels import NATIVE, Layer, kernel_names
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.integer import ops
from tvmcompress.targets.object_code import object_code
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.kernels.lookup import FEATURE
from tvmcompress.targets.x86.lower import lower, prim_funcs


def made(shape):
    layer = Layer(shape, 3)
    table = np.random.default_rng(0).permutation(256).astype("uint8").view("int8")
    return table, layer.finish(ops.qlut(layer.x, layer.param("table", table)))


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 50), (64,), (1, 7, 9, 5), (3, 21), (2,)])
def test_every_byte(shape) -> None:
    table, mod = made(shape)
    x = np.resize(np.arange(-128, 128), shape).astype("int8")
    machine = relax.VirtualMachine(compile_module(mod).executable, tvm.cpu())
    got = machine["main"](tvm.runtime.tensor(x)).numpy()
    np.testing.assert_array_equal(got, table[x.astype("int64") + 128])
    vectors = FEATURE in NATIVE and x.size >= 64
    assert kernel_names(mod, NATIVE) == ["x86_qlut" if vectors else "qlut"]


def test_it_compiles_on_every_machine() -> None:
    _, mod = made((3, 50))
    (func,) = (f for name, f in prim_funcs(lower(mod, host.cpu_features("znver4"))).items() if name.startswith("x86_qlut"))
    module = tvm.IRModule({"lookup": func.with_attr("global_symbol", "lookup")})
    assert b"\x75" in object_code(tvm.tirx.build(module, target=host.tvm_target("znver4", 1)))  # the opcode of vpermi2b
