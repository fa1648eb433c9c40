"""Dequantize: a graph by hand, and that quantizing again finds the same integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import Dequantize, Quantize, attach_params, calibrate, get_params
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run

from ..small_models import model, operators, samples, weights

op = relax.op
SHAPE = (1, 3, 6, 5)
_PARAMS = weights(a__weight=(8, 3, 3, 3), a__bias=(1, 8, 1, 1), b__weight=(8, 8, 3, 3), f__weight=(8, 4))


def _net(x: relax.Expr, p: dict) -> relax.Expr:
    y = op.nn.relu(op.add(op.nn.conv2d(x, p["a.weight"], padding=1), p["a.bias"]))
    y = op.add(y, op.nn.conv2d(y, p["b.weight"], padding=1))
    return op.matmul(op.reshape(op.mean(y, [2, 3], keepdims=True), (1, 8)), p["f.weight"])


def test_by_hand() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4), "float32"), w: R.Tensor((4, 2), "int8")) -> R.Tensor((1, 2), "float32"):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                q = R.quantize(x, R.const(0.5, "float32"), R.const(3, "int8"), axis=-1, out_dtype="int8")
                d = R.dequantize(q, R.const(0.5, "float32"), R.const(3, "int8"), axis=-1, out_dtype="float32")
                v = R.dequantize(w, R.const([0.25, 2.0], "float32"), R.const([0, 0], "int8"), axis=1, out_dtype="float32")
                y = R.matmul(d, v)
                z = R.nn.relu(y)
                R.output(z)
            return z

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 4), "float32"), w: R.Tensor((4, 2), "float32")) -> R.Tensor((1, 2), "float32"):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.matmul(x, w)
                z = R.nn.relu(y)
                output = z
                R.output(output)
            return output

    integers = np.array([[1, -2], [3, 4], [-128, 127], [0, 5]], np.int8)
    after = Dequantize()(attach_params(Before, {"w": integers}))
    tvm.ir.assert_structural_equal(after.without_attr("tvmcompress.params")["main"], After["main"], map_free_vars=True)
    expected = np.array([[0.25, -4], [0.75, 8], [-32, 254], [0, 10]], np.float32)
    np.testing.assert_array_equal(get_params(after)["w"], expected)


@pytest.mark.parametrize("precision", ["int8", "int4", "int16x8"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_quantizing_again_finds_the_same_integers(precision: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params = {name: (value * rng.uniform(0.2, 3.0)).astype(np.float32) for name, value in _PARAMS.items()}
    mod = model(_net, SHAPE, params=params)
    ranges = calibrate(mod, [samples(SHAPE)])
    once = Quantize(ranges, precision=precision)(mod)
    back = Dequantize()(once)
    assert operators(back) == operators(mod)
    assert {str(value.dtype) for value in get_params(back).values()} == {"float32"}
    for name, value in get_params(back).items():
        assert value.shape == params[name].shape
        if precision != "int4":
            assert np.abs(value - params[name]).max() <= 1.02 / 254 * np.abs(params[name]).max() + 1e-6, name
        elif not name.endswith("bias"):
            axis = 1 if value.ndim == 2 else 0
            assert all(len(np.unique(channel)) <= 16 for channel in np.moveaxis(value, axis, 0)), name
    again = Quantize(ranges, precision=precision)(back)
    (x,) = samples(SHAPE)
    np.testing.assert_allclose(run(again, [x])[0], run(once, [x])[0], rtol=1e-4, atol=1e-5)


def test_a_float_module_stays() -> None:
    mod = model(_net, SHAPE, params=_PARAMS)
    tvm.ir.assert_structural_equal(Dequantize()(mod), mod, map_free_vars=True)
