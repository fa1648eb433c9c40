"""Grids of quantized constants: what is read, what is stored, how far it may reach."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import Quantize, attach_params, calibrate, detach_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.quantization.quantized_layers import quantized_layers

from ..small_models import model, samples, weights

op = relax.op


def _dequantized(p, scale, zero, axis):
    return op.dequantize(
        p["w"], relax.const(np.asarray(scale, np.float32)), relax.const(np.asarray(zero, str(p["w"].ty.dtype))), axis=axis
    )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("dtype", "zero"), [("int8", [0, 0, 0]), ("uint8", [128, 120, 3])])
def test_integers_read_and_stored(transposed, dtype, zero):
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    stored = rng.integers(info.min, info.max + 1, (4, 3)).astype(dtype)
    stored = stored.T.copy() if transposed else stored

    def build(x, p):
        real = _dequantized(p, [0.5, 0.25, 0.1], zero, 0 if transposed else 1)
        return op.nn.relu(op.matmul(x, op.permute_dims(real) if transposed else real))

    mod = model(build, (1, 4), params={"w": stored})
    layers, declined = quantized_layers(mod)
    (layer,) = layers.values()
    assert not declined
    assert layer.limits == (0.0, np.inf)
    assert layer.bias is None
    grid = layer.weight
    np.testing.assert_allclose(run(mod, [np.eye(4, dtype=np.float32)[:1]])[0][0], np.maximum(grid.real()[0], 0), rtol=1e-6)
    np.testing.assert_array_equal(grid.stored(grid.integers), stored)
    assert (grid.lowest >= info.min - np.asarray(zero)).all()
    assert (grid.highest <= info.max - np.asarray(zero)).all()
    # Other integers mean what the module then computes.
    other = np.clip(grid.integers + 1, grid.lowest, grid.highest)
    bare, params = detach_params(mod)
    changed = attach_params(bare, {**params, "w": grid.stored(other)})
    x = samples((1, 4))
    np.testing.assert_allclose(run(changed, x)[0], np.maximum(x[0] @ grid.real(other), 0), rtol=1e-5, atol=1e-5)


def test_fewer_bits_stay_fewer():
    params = weights(c__weight=(4, 3, 3, 3), c__bias=(1, 4, 1, 1))
    mod = model(lambda x, p: op.clip(op.add(op.nn.conv2d(x, p["c.weight"]), p["c.bias"]), 0, 6), (1, 3, 6, 6), params=params)
    quantized = Quantize(calibrate(mod, [samples((1, 3, 6, 6))]), precision="int4")(mod)
    (layer,) = quantized_layers(quantized)[0].values()
    assert layer.weight.lowest.min() >= -8
    assert layer.weight.highest.max() <= 7
    assert layer.weight.nearest(np.full((4, 3, 3, 3), 100.0)).max() <= 7
    assert layer.bias is not None
    assert layer.limits == (0.0, 6.0)


def test_weights_that_two_layers_read_are_declined():
    params = weights(c__weight=(3, 3, 1, 1))
    mod = model(lambda x, p: op.nn.conv2d(op.nn.conv2d(x, p["c.weight"]), p["c.weight"]), (1, 3, 4, 4), params=params)
    quantized = Quantize(calibrate(mod, [samples((1, 3, 4, 4))]))(mod)
    layers, declined = quantized_layers(quantized)
    assert not layers
    assert all("read by others" in reason for reason in declined.values())
    assert declined
