"""Exponentials in vectors against double precision, softmax and layer normalization against NumPy."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import attach_params
from tvmcompress.passes._tvm import relax, te, tvm
from tvmcompress.passes.graph.module_params import detach_params
from tvmcompress.targets.x86 import host
from tvmcompress.targets.x86.compile import compile_module
from tvmcompress.targets.x86.kernels import functions
from tvmcompress.targets.x86.kernels.rows import _layer_norm, _softmax
from tvmcompress.targets.x86.rows import schedule_rows, sums_over_rows

RANGE = np.concatenate([np.linspace(-100, 100, 80001), np.linspace(-1, 1, 20001), [0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30]])
SPECIAL = [np.inf, -np.inf, np.nan]

EXACT = {
    functions.exponential: np.exp,
    functions.error_function: scipy.special.erf,
    functions.logistic: scipy.special.expit,
    functions.hyperbolic_tangent: np.tanh,
    functions.gelu: lambda x: x * scipy.special.ndtr(x),
    functions.gelu_tanh: lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    functions.silu: lambda x: x * scipy.special.expit(x),
}


def computed(function, x):
    """The function of every element, in vectors of sixteen."""
    pad = np.pad(x.astype("float32"), (0, -x.size % 16))
    given = te.placeholder(pad.shape, "float32", name="x")
    func = te.create_prim_func([given, te.compute(pad.shape, lambda i: function(given[i]), name="y")])
    schedule = tvm.s_tir.Schedule(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}))
    (loop,) = schedule.get_loops(schedule.get_sblock("y"))
    schedule.vectorize(schedule.split(loop, [None, 16])[1])
    return ran(schedule.mod, [pad], pad.shape)[: x.size]


def ran(mod, arrays, shape):
    library = tvm.tirx.build(mod, target=host.tvm_target("native", 1))
    out = tvm.runtime.tensor(np.zeros(shape, "float32"))
    getattr(library, "mod", library)["main"](*(tvm.runtime.tensor(array) for array in arrays), out)
    return out.numpy()


@pytest.mark.parametrize("function", EXACT, ids=lambda function: function.__name__)
def test_functions_are_those_of_double_precision(function) -> None:
    x = RANGE.astype("float32").astype("float64")
    with np.errstate(all="ignore"):
        expected = EXACT[function](x).astype("float32")
    got = computed(function, x)
    inside = np.isfinite(expected) & (np.abs(expected) > 1.2e-38)
    bound = 2e-6 if function is functions.exponential else 8e-7
    # Relative, or of 1 where a sum with 1 is what loses digits.
    scale = np.abs(expected) if function is functions.exponential else np.maximum(np.abs(expected), np.minimum(1, np.abs(x)))
    assert (np.abs(got - expected) <= bound * scale)[inside].all()
    np.testing.assert_array_equal(got[~np.isfinite(expected)], expected[~np.isfinite(expected)])
    small = np.abs(expected) <= 1.2e-38
    assert (np.abs(got[small]) <= 1.2e-38).all()


@pytest.mark.parametrize("function", EXACT, ids=lambda function: function.__name__)
def test_functions_at_infinity_and_of_nan(function) -> None:
    high, low, undefined = computed(function, np.array(SPECIAL))
    assert np.isnan(undefined)
    ends = {functions.exponential: (np.inf, 0), functions.logistic: (1, 0)}
    ends |= dict.fromkeys([functions.error_function, functions.hyperbolic_tangent], (1, -1))
    if function in ends:
        assert (high, low) == ends[function]
    else:
        assert high == np.inf
        assert np.isnan(low)  # as -inf * 0


@pytest.mark.parametrize("shape", [(3, 2, 16), (5, 48), (2, 37), (1, 4, 197), (2,), (7, 5)])
def test_softmax(shape) -> None:
    x = (np.random.default_rng(0).normal(size=shape) * 9).astype("float32")
    x.flat[1] = -np.inf
    x.flat[0] = 150.0
    given = te.placeholder(shape, "float32", name="x")
    mod = tvm.IRModule({"main": te.create_prim_func([given, _softmax(given, shape)]).with_attr("global_symbol", "main")})
    assert sums_over_rows(mod)
    got = ran(schedule_rows(mod), [x], shape)
    np.testing.assert_allclose(got, scipy.special.softmax(x.astype("float64"), -1), rtol=3e-6, atol=1e-9)
    np.testing.assert_allclose(got, ran(mod, [x], shape), rtol=3e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 2, 16), (2, 37), (1, 4, 200), (7, 5)])
def test_layer_normalization(shape) -> None:
    random = np.random.default_rng(1)
    x = (random.normal(size=shape) * 3 + 40).astype("float32")
    gamma, beta = (random.normal(size=shape[-1:]).astype("float32") for _ in range(2))
    given = [te.placeholder(array.shape, "float32", name=name) for name, array in (("x", x), ("g", gamma), ("b", beta))]
    func = te.create_prim_func([*given, _layer_norm(*given, shape, 1e-5)])
    got = ran(schedule_rows(tvm.IRModule({"main": func.with_attr("global_symbol", "main")})), [x, gamma, beta], shape)
    wide = x.astype("float64")
    off = wide - wide.mean(-1, keepdims=True)
    expected = off / np.sqrt((off**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)


def test_what_a_model_calls() -> None:
    """Each of these operators takes its definition from here, and other axes and types keep TVM's."""

    @I.ir_module
    class Model:
        @R.function
        def main(x: R.Tensor((2, 3, 20), "float32"), g: R.Tensor((20,), "float32"), b: R.Tensor((20,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.nn.layer_norm(x, g, b, axes=[-1])
                z = R.nn.softmax(R.nn.gelu(y), axis=2)
                u = R.add(R.erf(z), R.multiply(R.tanh(y), R.sigmoid(y)))
                v = R.add(R.nn.softmax(u, axis=1), R.nn.silu(R.exp(u)))
                R.output(v)
            return v

    random = np.random.default_rng(2)
    x, gamma, beta = (random.normal(size=shape).astype("float32") for shape in ((2, 3, 20), (20,), (20,)))
    mod = attach_params(Model, {"g": gamma, "b": beta})
    compiled = compile_module(mod)
    names = set(compiled.schedules.unscheduled)
    assert not {name for name in names if "layer_norm" in name}
    assert len([name for name in names if "softmax" in name]) == 1
    got = relax.VirtualMachine(compiled.executable, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()
    plain, _ = detach_params(mod)
    target = tvm.target.Target("llvm")
    machine = relax.VirtualMachine(relax.build(plain, target), tvm.cpu())
    expected = machine["main"](*(tvm.runtime.tensor(array) for array in (x, gamma, beta))).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
