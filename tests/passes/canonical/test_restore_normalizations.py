"""Normalizations that were taken apart, put together again."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import RestoreNormalizations, get_params, groups
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run

from ..small_models import model, operators, samples, weights

op, nn = relax.op, relax.op.nn
IMAGE, TOKENS = (1, 12, 4, 4), (1, 5, 12)


def number(value):
    return relax.const(np.float32(value))


def group_norm(x, w, groups=4):
    rows = op.reshape(x, (1, groups, -1))
    ones, zeros = relax.const(np.ones(groups, "float32")), relax.const(np.zeros(groups, "float32"))
    norm = nn.instance_norm(rows, ones, zeros, channel_axis=1, axes=[2], epsilon=1e-5)
    return op.add(op.multiply(op.reshape(norm, IMAGE), w["scale"]), w["shift"])


def layer_norm(x, w, axis=-1, square=lambda d: op.power(d, number(2))):
    centred = op.subtract(x, op.mean(x, axis, keepdims=True))
    variance = op.mean(square(centred), axis, keepdims=True)
    norm = op.divide(centred, op.sqrt(op.add(variance, number(1e-5))))
    return op.add(op.multiply(norm, w["scale"]), w["shift"])


CASES = {
    "group_norm": (group_norm, IMAGE, (12, 1, 1), "nn.group_norm"),
    "layer_norm": (layer_norm, TOKENS, (12,), "nn.layer_norm"),
    "channels_first": (lambda x, w: layer_norm(x, w, 1), IMAGE, (12, 1, 1), "nn.layer_norm"),
    "product": (lambda x, w: layer_norm(x, w, square=lambda d: op.multiply(d, d)), TOKENS, (12,), "nn.layer_norm"),
}


@pytest.mark.parametrize("name", CASES)
def test_becomes_one_operator(name):
    build, shape, vector, expected = CASES[name]
    mod = model(build, shape, params=weights(scale=vector, shift=vector))
    restored = RestoreNormalizations()(mod)
    assert operators(restored) == [expected]
    assert {key: value.shape for key, value in get_params(restored).items()} == {"scale": (12,), "shift": (12,)}
    x = samples(shape)
    np.testing.assert_allclose(run(restored, x)[0], run(mod, x)[0], rtol=1e-5, atol=1e-5)


def test_a_scale_that_others_read_stays_outside():
    mod = model(
        lambda x, w: op.multiply(layer_norm(x, w), w["scale"]), TOKENS, params=weights(scale=(12,), shift=(12,))
    )
    restored = RestoreNormalizations()(mod)
    assert operators(restored) == ["nn.layer_norm", "multiply", "add", "multiply"]
    x = samples(TOKENS)
    np.testing.assert_allclose(run(restored, x)[0], run(mod, x)[0], rtol=1e-5, atol=1e-5)


LOOKALIKES = {
    "other exponent": lambda x, w: layer_norm(x, w, square=lambda d: op.power(d, number(4))),
    "square of something else": lambda x, w: layer_norm(x, w, square=lambda d: op.multiply(x, x)),
    "other axis": lambda x, w: layer_norm(x, w, square=lambda d: op.power(op.subtract(x, op.mean(x, 1, True)), number(2))),
    "mean of something else": lambda x, w: op.divide(
        op.subtract(x, op.mean(op.exp(x), -1, True)),
        op.sqrt(op.add(op.mean(op.power(op.subtract(x, op.mean(x, -1, True)), number(2)), -1, True), number(1e-5))),
    ),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_only_looks_like_one_is_left(name):
    mod = model(LOOKALIKES[name], TOKENS, params=weights(scale=(12,), shift=(12,)))
    assert operators(RestoreNormalizations()(mod)) == operators(mod)


def test_the_channels_it_runs_over_can_be_pruned():
    def build(x, w):
        x = op.add(nn.conv2d(x, w["a.weight"]), w["a.bias"])
        return nn.conv2d(layer_norm(x, w, 1), w["b.weight"])

    kernels = {"a__weight": (12, 3, 1, 1), "a__bias": (1, 12, 1, 1), "b__weight": (4, 12, 1, 1)}
    params = weights(scale=(12, 1, 1), shift=(12, 1, 1), **kernels)
    mod = model(build, (1, 3, 4, 4), params=params)
    assert [group.size for group in groups(mod) if group.frozen is None] == []
    assert [group.size for group in groups(RestoreNormalizations()(mod)) if group.frozen is None] == [12]
