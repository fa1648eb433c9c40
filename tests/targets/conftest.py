"""Small networks: one, float and integer, that meets every kind of function (kernels, tails, views, in-place results), and
one of the integer operators of transformers and decoders."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import LowerQDQ, Quantize, attach_params, calibrate
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.module_params import param_vars, static_shape

from ..passes import small_models

op = relax.op


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


@pytest.fixture(scope="session")
def attention_qdq():
    """A network with normalizations, products of tensors, softmax, division and what decoders have, in QDQ form."""
    shape = (1, 4, 4, 4)
    sizes = {"slope": (6,), "gamma": (6,), "beta": (6,), "c__gamma": (4,), "c__beta": (4,)}
    params = small_models.weights(up__weight=(4, 6, 3, 3), q__weight=(6, 6), k__weight=(6, 6), **sizes)
    kept = np.tril(np.ones((16, 16), bool))

    def build(x, p):
        y = op.nn.group_norm(x, p["c.gamma"], p["c.beta"], 2, 1, [2, 3])
        y = op.nn.prelu(op.nn.conv2d_transpose(y, p["up.weight"], strides=2, padding=1, output_padding=1), p["slope"])
        y = op.nn.max_pool2d(y, 2, 2)
        tokens = op.permute_dims(op.reshape(y, (1, 6, 16)), [0, 2, 1])
        tokens = op.nn.layer_norm(tokens, p["gamma"], p["beta"], [-1])
        q, k = op.matmul(tokens, p["q.weight"]), op.matmul(tokens, p["k.weight"])
        scores = op.multiply(op.matmul(q, op.permute_dims(k, [0, 2, 1])), relax.const(0.4))
        scores = op.where(relax.const(kept), scores, relax.const(np.float32(-np.inf)))
        mixed = op.divide(op.matmul(op.nn.softmax(scores, -1), k), op.add(op.abs(q), relax.const(1.0)))
        return op.nn.log_softmax(op.maximum(mixed, q), -1)

    mod = small_models.model(build, shape, params=params)
    return Quantize(calibrate(mod, [small_models.samples(shape)]))(mod)
