"""SmoothScales: the formula of the paper, the float result, and what int8 gains."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import Quantize, SmoothScales, UserError, calibrate, get_params, get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run

from ..small_models import model, samples, weights

op = relax.op
SHAPE = (1, 6, 8)


def _with_outliers(seed=0):
    """Parameters of two projections and a feed-forward layer; two channels are far larger than the others."""
    params = weights(
        seed, gamma=(8,), beta=(8,), q__weight=(8, 8), k__weight=(8, 8), f__weight=(8, 5), f__bias=(5,), g=(8,), h=(8,)
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    for name in ("gamma", "g"):
        params[name] = (np.abs(params[name]) + 0.5).astype(np.float32)
        params[name][rng.choice(8, 2, replace=False)] *= 40
    return params


def _norm(kind, x, p):
    if kind == "layer":
        return op.nn.layer_norm(x, p["gamma"], p["beta"], axes=[-1])
    if kind == "rms":
        return op.nn.rms_norm(x, p["gamma"], axes=[-1])
    scaled = op.multiply(op.nn.relu(x), p["g"])
    return op.add(scaled, p["h"]) if kind == "affine" else scaled


def _block(kind):
    def build(x, p):
        y = _norm(kind, x, p)
        q, k = op.matmul(y, p["q.weight"]), op.matmul(op.reshape(y, (6, 8)), p["k.weight"])
        mixed = op.multiply(op.nn.relu(q), op.sigmoid(op.reshape(k, SHAPE)))
        return op.add(op.matmul(mixed, p["f.weight"]), p["f.bias"])

    return build


def _model(kind, seed=0):
    params = _with_outliers(seed)
    used = {"layer": ("gamma", "beta"), "rms": ("gamma",), "affine": ("g", "h"), "scaled": ("g",)}[kind]
    kept = {name: params[name] for name in (*used, "q.weight", "k.weight", "f.weight", "f.bias")}
    return model(_block(kind), SHAPE, params=kept), used


@given(seed=st.integers(0, 1000), kind=st.sampled_from(["layer", "rms", "affine", "scaled"]), alpha=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_float_result_stays(seed, kind, alpha):
    mod, used = _model(kind, seed)
    x = samples(SHAPE, count=10, seed=seed)
    smooth = SmoothScales(x, alpha=alpha)(mod)
    before, after = run(mod, x)[0], run(smooth, x)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())
    changed = [name for name, value in get_params(smooth).items() if not np.array_equal(value, get_params(mod)[name])]
    assert sorted(changed) == sorted([*used, "q.weight", "k.weight"])


@pytest.mark.parametrize("kind", ["instance", "group", "affine"])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_convolutions_read_it(kind, groups):
    params = weights(3, gamma=(8,), beta=(8,), g=(8, 1, 1), h=(8, 1, 1), w=(8, 8 // groups, 3, 3), v=(4, 8, 1, 1))
    params["gamma"][2] *= 40

    def build(x, p):
        if kind == "affine":
            y = op.add(op.multiply(x, p["g"]), p["h"])
        elif kind == "group":
            y = op.nn.group_norm(x, p["gamma"], p["beta"], num_groups=2, channel_axis=1, axes=[2, 3])
        else:
            y = op.nn.instance_norm(x, p["gamma"], p["beta"], channel_axis=1, axes=[2, 3])
        pooled = op.nn.max_pool2d(op.nn.relu(y), [2, 2], [2, 2])
        first, second = op.nn.conv2d(pooled, p["w"], padding=1, groups=groups), op.nn.conv2d(y, p["v"])
        return op.add(op.mean(first, [1, 2, 3]), op.mean(second, [1, 2, 3]))

    makers = ["g", "h"] if kind == "affine" else ["gamma", "beta"]
    mod = model(build, (1, 8, 6, 6), params={name: params[name] for name in (*makers, "w", "v")})
    x = samples((1, 8, 6, 6), count=4)
    smooth = SmoothScales(x)(mod)
    changed = [name for name, value in get_params(smooth).items() if not np.array_equal(value, params[name])]
    assert sorted(changed) == sorted([*makers, "w", "v"])
    before, after = run(mod, x)[0], run(smooth, x)[0]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())
    assert get_remarks(SmoothScales(x, apart=1e6)(mod))[0].pass_name == "SmoothScales"


def test_the_formula_of_the_paper():
    mod, _ = _model("layer")
    x, params = samples(SHAPE, count=10), get_params(mod)
    after = get_params(SmoothScales(x, alpha=0.75)(mod))
    centred = x[0].astype(np.float64) - x[0].mean(-1, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
    largest = np.abs(normal * params["gamma"] + params["beta"]).max((0, 1))
    weight = np.maximum(np.abs(params["q.weight"]).max(1), np.abs(params["k.weight"]).max(1))
    scale = largest**0.75 / weight**0.25
    np.testing.assert_allclose(after["gamma"], params["gamma"] / scale, rtol=1e-4)
    np.testing.assert_allclose(after["beta"], params["beta"] / scale, rtol=1e-4)
    np.testing.assert_allclose(after["q.weight"], params["q.weight"] * scale[:, None], rtol=1e-4)
    # At one half, activations and weights of a channel become alike.
    half = get_params(SmoothScales(x)(mod))
    left = largest * half["gamma"] / params["gamma"]
    np.testing.assert_allclose(left, np.maximum(*(np.abs(half[f"{n}.weight"]).max(1) for n in "qk")), rtol=1e-4)


def test_int8_gains():
    mod, _ = _model("layer")
    x = samples(SHAPE, count=40)
    wanted = run(mod, x)[0]
    errors = []
    for made in (mod, SmoothScales(x)(mod)):
        quantized = Quantize(calibrate(made, [x]))(made)
        errors.append(np.square(run(quantized, x)[0] - wanted).mean())
    assert errors[1] < 0.8 * errors[0]


def test_a_result_that_others_read_is_left():
    params = _with_outliers()

    def build(x, p):
        y = op.nn.layer_norm(x, p["gamma"], p["beta"], axes=[-1])
        return op.add(op.matmul(y, p["q.weight"]), y)

    mod = model(build, SHAPE, params={name: params[name] for name in ("gamma", "beta", "q.weight")})
    smooth = SmoothScales(samples(SHAPE))(mod)
    for name, value in get_params(smooth).items():
        np.testing.assert_array_equal(value, params[name])
    assert "read by matrix products and convolutions alone" in get_remarks(smooth)[0].message


def test_bad_input():
    mod, _ = _model("layer")
    with pytest.raises(UserError, match="alpha is a share"):
        SmoothScales([], alpha=2)
    with pytest.raises(UserError, match="apart is how many times"):
        SmoothScales([], apart=0)
    with pytest.raises(UserError, match="needs calibration samples"):
        SmoothScales([])(mod)
    with pytest.raises(UserError, match="do not fit the model"):
        SmoothScales([np.zeros((2, 3), np.float32)])(mod)
