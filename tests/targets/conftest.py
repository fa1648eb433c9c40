"""A small network, float and integer, that meets every kind of function: kernels, tails, views, in-place results."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import LowerQDQ, Quantize, attach_params, calibrate
from tvmcompress.passes.module_params import param_vars, static_shape


@I.ir_module
class _Net:
    @R.function
    def main(
        x: R.Tensor((1, 3, 13, 11), "float32"),
        stem: R.Tensor((8, 3, 3, 3), "float32"),
        stem_bias: R.Tensor((1, 8, 1, 1), "float32"),
        deep: R.Tensor((8, 1, 3, 3), "float32"),
        deep_bias: R.Tensor((1, 8, 1, 1), "float32"),
        point: R.Tensor((12, 8, 1, 1), "float32"),
        point_bias: R.Tensor((1, 12, 1, 1), "float32"),
        again: R.Tensor((12, 12, 3, 3), "float32"),
        again_bias: R.Tensor((1, 12, 1, 1), "float32"),
        head: R.Tensor((12, 5), "float32"),
        head_bias: R.Tensor((5,), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            a = R.nn.relu(R.add(R.nn.conv2d(x, stem, padding=[1, 1, 1, 1]), stem_bias))
            p = R.nn.max_pool2d(a, pool_size=[2, 2], strides=[2, 2])
            b = R.nn.conv2d(p, deep, strides=[1, 1], padding=[1, 1, 1, 1], groups=8)
            c = R.clip(R.add(b, deep_bias), R.prim_value(0), R.prim_value(6))
            d = R.add(R.nn.conv2d(c, point), point_bias)
            e = R.add(R.nn.conv2d(d, again, padding=[1, 1, 1, 1]), again_bias)
            f = R.nn.relu(R.add(e, d))
            g = R.mean(f, axis=[2, 3], keepdims=True)
            h = R.reshape(g, (1, 12))
            i = R.add(R.matmul(h, head), head_bias)
            out = R.nn.softmax(i, axis=1)
            R.output(out)
        return out


@pytest.fixture(scope="session")
def float_net():
    """The network with random weights."""
    random = np.random.default_rng(0)
    values = {}
    for var in param_vars(_Net["main"]):
        shape = static_shape(var)
        values[var.name] = (2 * random.normal(size=shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype("float32")
    return attach_params(_Net, values)


@pytest.fixture(scope="session")
def samples():
    """Four float inputs."""
    return np.random.default_rng(1).normal(size=(4, 3, 13, 11)).astype("float32")


@pytest.fixture(scope="session")
def integer_net(float_net, samples):
    """The network, quantized and lowered to integer operators."""
    return LowerQDQ()(Quantize(calibrate(float_net, [[samples]]))(float_net))
