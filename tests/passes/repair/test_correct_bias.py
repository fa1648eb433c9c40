"""CorrectBias: no layer is off in the mean, from samples or from what normalizations knew."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import (
    Canonicalize,
    CorrectBias,
    FoldBatchNorm,
    LowerQDQ,
    Quantize,
    RoundByHessian,
    RoundWeights,
    UserError,
    calibrate,
    get_params,
    get_remarks,
)
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.normalization_statistics import get_statistics
from tvmcompress.passes.quantization.quantized_layers import quantized_layers

from ..small_models import model, samples, weights

op = relax.op
SHAPE = (1, 3, 6, 6)


def _conv(x, p, name, **options):
    return op.add(op.nn.conv2d(x, p[f"{name}.weight"], **options), p[f"{name}.bias"])


def _network(seed=0):
    """Convolutions of all kinds, a residual addition, a dense layer."""
    params = weights(
        seed, a__weight=(4, 3, 3, 3), a__bias=(1, 4, 1, 1), d__weight=(4, 1, 3, 3), d__bias=(1, 4, 1, 1),
        g__weight=(4, 2, 1, 1), g__bias=(1, 4, 1, 1), f__weight=(4, 5), f__bias=(5,),
    )  # fmt: skip

    def build(x, p):
        y = op.nn.relu(_conv(x, p, "a", padding=1))
        z = op.nn.relu(_conv(y, p, "d", padding=1, groups=4))
        z = op.nn.relu(op.add(_conv(z, p, "g", groups=2), y))
        return op.add(op.matmul(op.mean(z, [2, 3]), p["f.weight"]), p["f.bias"])

    return model(build, SHAPE, params=params)


def _sums(mod, inputs):
    """Mean of the result behind every bias, by channel."""
    found = {}

    def tap(name, value):
        if name.endswith(".bias_add"):
            axis = 1 if value.ndim == 4 else value.ndim - 1
            found[name] = value.astype(np.float64).mean(tuple(a for a in range(value.ndim) if a != axis))

    run(mod, inputs, tap)
    return found


@given(seed=st.integers(0, 1000), granularity=st.sampled_from(["per_channel", "per_tensor"]))
@settings(max_examples=10, deadline=None)
def test_no_layer_is_off_by_more_than_half_a_step(seed, granularity):
    mod, inputs = _network(seed), samples(SHAPE, count=16, seed=seed)
    quantized = Quantize(calibrate(mod, [inputs]), weights=granularity, precision="int4")(mod)
    corrected = CorrectBias(mod, inputs)(quantized)
    wanted, before, after = (_sums(m, inputs) for m in (mod, quantized, corrected))
    assert len(after) == 4
    steps = _bias_steps(corrected)
    for name, value in after.items():
        step = steps[name]
        assert (np.abs(value - wanted[name]) <= 0.5 * step + 1e-5).all(), name
    assert max(np.abs(before[name] - wanted[name]).max() for name in wanted) > 0.01
    assert not get_remarks(corrected)


def _bias_steps(mod):
    """The step of the integers of every bias, by the sum that reads it."""
    return {layer.added.name: layer.bias.steps.reshape(-1) for layer in quantized_layers(mod)[0].values()}


@pytest.mark.parametrize("repair", [CorrectBias, RoundWeights, RoundByHessian])
def test_transposed_convolutions_are_left_with_a_remark(repair):
    params = weights(c__weight=(4, 3, 3, 3), c__bias=(1, 4, 1, 1), up__weight=(4, 2, 2, 2), up__bias=(1, 2, 1, 1))

    def build(x, p):
        y = op.nn.relu(_conv(x, p, "c", padding=1))
        return op.add(op.nn.conv2d_transpose(y, p["up.weight"], strides=(2, 2)), p["up.bias"])

    mod, inputs = model(build, SHAPE, params=params), samples(SHAPE)
    quantized = Quantize(calibrate(mod, [inputs]), precision="int4")(mod)
    repaired = repair(mod, inputs)(quantized)
    (remark,) = get_remarks(repaired)
    assert (remark.pass_name, remark.subject) == (repair.__name__, "up")
    assert "transposed convolutions keep the integers" in remark.message
    before, after = get_params(quantized), get_params(repaired)
    assert {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])} == {"c"}


def test_one_layer_by_hand():
    params = {"w": np.array([[0.3, -1.0], [1.0, 0.4]], np.float32), "b": np.array([0.5, -0.25], np.float32)}
    mod = model(lambda x, p: op.add(op.matmul(x, p["w"]), p["b"]), (1, 2), params=params)
    x = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    quantized = Quantize(calibrate(mod, [[x]]), precision="int4")(mod)
    before, after = get_params(quantized), get_params(CorrectBias(mod, [x])(quantized))
    (layer,) = quantized_layers(quantized)[0].values()
    scale = layer.weight.steps[0].astype(np.float32)
    # The range of the input is extended to hold zero.
    step = np.float32(x.max() / 255)
    rounded = np.clip(np.rint(x / step), 0, 255) * step
    error = (x @ params["w"] - rounded @ (before["w"] * scale)).mean(0)
    bias = before["b"] * (step * scale)
    np.testing.assert_array_equal(after["b"], np.rint((bias + (params["b"] - bias) + error) / (step * scale)))
    np.testing.assert_array_equal(after["w"], before["w"])


def test_it_reaches_the_integer_program():
    mod, inputs = _network(), samples(SHAPE, count=16)
    quantized = Quantize(calibrate(mod, [inputs]), precision="int4")(mod)
    plain = run(mod, inputs)[0]
    errors = [
        np.abs((run(LowerQDQ()(m), inputs)[0] - plain).mean(0)).max() for m in (quantized, CorrectBias(mod, inputs)(quantized))
    ]
    assert errors[1] < 0.3 * errors[0]


def _normalized():
    """conv, batch normalization, ReLU, mean over space, dense; and the expected value of the dense layer's input."""
    rng = np.random.default_rng(3)
    gamma, beta = rng.uniform(0.5, 2, 6), rng.normal(0, 1, 6)
    params = {
        **weights(c__weight=(6, 3, 3, 3), f__weight=(6, 4), f__bias=(4,)),
        "gamma": gamma.astype(np.float32), "beta": beta.astype(np.float32),
        "mean": rng.normal(0, 1, 6).astype(np.float32), "var": rng.uniform(0.5, 2, 6).astype(np.float32),
    }  # fmt: skip

    def build(x, p):
        y = op.nn.conv2d(x, p["c.weight"], padding=1)
        y = relax.TupleGetItem(op.nn.batch_norm(y, p["gamma"], p["beta"], p["mean"], p["var"], 1, training=False), 0)
        return op.add(op.matmul(op.mean(op.nn.relu(y), [2, 3]), p["f.weight"]), p["f.bias"])

    mod = Canonicalize()(FoldBatchNorm()(model(build, SHAPE, params=params)))
    drawn = np.maximum(rng.normal(beta, gamma, (400_000, 6)), 0)
    return mod, gamma, beta, drawn.mean(0)


def test_folding_keeps_what_normalization_knew():
    mod, gamma, beta, _ = _normalized()
    found = get_statistics(mod)
    assert list(found) == ["c.weight"]
    np.testing.assert_allclose(found["c.weight"].mean, beta, rtol=1e-6)
    np.testing.assert_allclose(found["c.weight"].deviation, gamma, rtol=1e-6)


def test_analytic_correction_is_the_expected_error():
    mod, _, _, expected = _normalized()
    quantized = Quantize(calibrate(mod, [samples(SHAPE)]), precision="int4")(mod)
    corrected = CorrectBias(mod)(quantized)
    before, after, params = get_params(quantized), get_params(corrected), get_params(mod)
    np.testing.assert_array_equal(after["c.bias"], before["c.bias"])
    scale = quantized_layers(quantized)[0].popitem()[1].weight.steps[0]
    error = expected @ (before["f.weight"] * scale - params["f.weight"])
    steps = _bias_steps(corrected)["f.bias_add"]
    np.testing.assert_allclose(
        (after["f.bias"] - before["f.bias"]) * steps, -error, atol=0.01 * np.abs(error).max() + steps.max()
    )
    assert np.abs(error).max() > 10 * steps.max()
    assert [r.subject for r in get_remarks(corrected) if r.pass_name == "CorrectBias"] == ["c"]


def test_what_cannot_be_corrected_is_said():
    params = weights(w=(2, 3), v=(3, 3))
    mod = model(lambda x, p: op.matmul(op.nn.relu(op.matmul(x, p["w"])), p["v"]), (1, 2), params=params)
    x = samples((1, 2))
    quantized = Quantize(calibrate(mod, [x]))(mod)
    assert "no quantized bias" in get_remarks(CorrectBias(mod, x)(quantized))[0].message
    with pytest.raises(UserError, match="without calibration samples"):
        CorrectBias(mod, [x[0][:0]])(quantized)


def test_another_float_model_is_noticed():
    mod, other, inputs = _network(), model(lambda x, p: op.nn.relu(x), SHAPE), samples(SHAPE)
    quantized = Quantize(calibrate(mod, [inputs]))(mod)
    corrected = CorrectBias(other, inputs)(quantized)
    assert {r.message for r in get_remarks(corrected)} == {"the float model has no tensor of this name and shape"}
    for name, value in get_params(corrected).items():
        np.testing.assert_array_equal(value, get_params(quantized)[name])
