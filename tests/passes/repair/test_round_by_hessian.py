"""RoundByHessian: GPTQ as the paper has it, and what it is good for."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import (
    LowerQDQ,
    Quantize,
    RoundByHessian,
    Scheme,
    UserError,
    calibrate,
    get_params,
    get_remarks,
)
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.repair.round_by_hessian import round_columns

from ..small_models import model, samples, weights

op = relax.op
SHAPE = (1, 4, 8, 8)


def textbook(weight, step, low, high, moments, damping):
    """Optimal brain quantization with a fixed order: after each column the inverse of the rest's Hessian, anew.

    The inverse of what is left is taken directly, without any Cholesky factor.
    """
    w, size = weight.astype(np.float64).copy(), weight.shape[1]
    hessian = moments + damping * np.diag(moments).mean() * np.eye(size)
    q = np.empty(w.shape, np.int64)
    for k in range(size):
        inverse = np.linalg.inv(hessian[k:, k:])
        q[:, k] = np.clip(np.rint(w[:, k] / step[:, k]), low, high)
        error = (w[:, k] - q[:, k] * step[:, k]) / inverse[0, 0]
        w[:, k:] -= np.outer(error, inverse[0])
    return q


@given(seed=st.integers(0, 10_000), size=st.integers(1, 150), outputs=st.integers(1, 6), order=st.booleans())
@settings(max_examples=40, deadline=None)
def test_against_the_textbook(seed, size, outputs, order):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3 * size + 5, size)) @ rng.normal(size=(size, size))
    weight, moments = rng.normal(size=(outputs, size)), x.T @ x
    step = rng.uniform(0.1, 0.4, (outputs, size))
    low, high = (np.full(weight.shape, v) for v in (-8, 7))
    found = round_columns(weight[None], step[None], low[None], high[None], moments[None], 0.01, order)[0]
    taken = np.argsort(-np.diag(moments), kind="stable") if order else np.arange(size)
    expected = np.empty_like(found)
    expected[:, taken] = textbook(weight[:, taken], step[:, taken], -8, 7, moments[np.ix_(taken, taken)], 0.01)
    # A value half way between two integers may fall on either side, and changes what follows in its row.
    agree = (found == expected).all(1)
    assert agree.mean() >= 0.5 if size > 20 else agree.all()
    loss = [np.einsum("ok,kl,ol->o", d, moments, d) for d in (weight - q * step for q in (found, expected))]
    np.testing.assert_allclose(loss[0][agree], loss[1][agree])


def test_groups_are_rounded_each_by_itself():
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(3, 2, 9)), rng.normal(size=(3, 50, 9))
    moments = x.transpose(0, 2, 1) @ x
    step, low, high = np.full(weight.shape, 0.3), np.full(weight.shape, -8), np.full(weight.shape, 7)
    together = round_columns(weight, step, low, high, moments, 0.01, True)
    for g in range(3):
        alone = round_columns(weight[g : g + 1], step[g : g + 1], low[:1], high[:1], moments[g : g + 1], 0.01, True)
        np.testing.assert_array_equal(together[g], alone[0])


def _network(seed=0, **kinds):
    """A convolution of a kind behind another, and a dense layer."""
    groups = kinds.get("groups", 1)
    params = weights(
        seed, a__weight=(8, 4, 3, 3), a__bias=(1, 8, 1, 1), b__weight=(8, 8 // groups, 3, 3), b__bias=(1, 8, 1, 1),
        f__weight=(8, 5), f__bias=(5,),
    )  # fmt: skip

    def build(x, p):
        y = op.nn.relu(op.add(op.nn.conv2d(x, p["a.weight"], padding=1), p["a.bias"]))
        y = op.nn.relu(op.add(op.nn.conv2d(y, p["b.weight"], padding=1, **kinds), p["b.bias"]))
        return op.add(op.matmul(op.mean(y, [2, 3]), p["f.weight"]), p["f.bias"])

    return model(build, SHAPE, params=params)


def _correlated(count=32, seed=1):
    """Smooth images, as real ones are."""
    x = samples(SHAPE, count=count, seed=seed)[0]
    return [(x + np.roll(x, 1, 2) + np.roll(x, 1, 3) + x[:, ::-1]).astype(np.float32)]


@pytest.mark.parametrize("kinds", [{}, {"groups": 2}, {"groups": 8}, {"strides": 2}, {"dilation": 2}])
@pytest.mark.parametrize("compensate", [False, True])
def test_the_result_gets_better(kinds, compensate):
    mod, inputs, unseen = _network(**kinds), _correlated(), _correlated(seed=2)
    quantized = Quantize(calibrate(mod, [inputs]), precision="int4")(mod)
    rounded = RoundByHessian(mod, inputs, compensate=compensate)(quantized)
    wanted = run(mod, unseen)[0]
    before, after = (np.square(run(LowerQDQ()(m), unseen)[0] - wanted).mean() for m in (quantized, rounded))
    assert after < 0.7 * before
    changed = {name for name, value in get_params(rounded).items() if not np.array_equal(value, get_params(quantized)[name])}
    assert {"a.weight", "b.weight", "f.weight"} <= changed
    assert ("a.bias" in changed) == compensate
    assert all(
        get_params(rounded)[name].min() >= -8 and get_params(rounded)[name].max() <= 7 for name in changed if "w" in name
    )
    assert not get_remarks(rounded)


def test_few_samples_do_not_make_it_worse_on_others():
    """With half as many rows as a layer has inputs, errors can be made good on these rows alone."""
    mod = model(lambda x, p: op.add(op.matmul(x, p["w"]), p["b"]), (1, 96), params=weights(w=(96, 12), b=(12,)))
    seen, others = samples((1, 96), count=48), samples((1, 96), count=500, seed=2)
    ranges = calibrate(mod, [seen])
    nearest = Quantize(ranges, precision=Scheme("int4"))(mod)
    rounded = RoundByHessian(mod, seen, compensate=False)(nearest)
    wanted = run(mod, others)[0]
    errors = [float(np.square(run(made, others)[0] - wanted).mean()) for made in (nearest, rounded)]
    assert errors[1] < 1.1 * errors[0]


def test_groups_of_input_channels_keep_their_multipliers():
    mod, inputs = _network(), _correlated()
    quantized = Quantize(calibrate(mod, [inputs]), precision=Scheme("int4", group_size=2))(mod)
    rounded = RoundByHessian(mod, inputs)(quantized)
    before, after = get_params(quantized), get_params(rounded)
    assert before["b.weight.multipliers"].max() > 1
    np.testing.assert_array_equal(before["b.weight.multipliers"], after["b.weight.multipliers"])
    wanted = run(mod, inputs)[0]
    errors = [np.square(run(LowerQDQ()(m), inputs)[0] - wanted).mean() for m in (quantized, rounded)]
    assert errors[1] < 0.7 * errors[0]


def test_seven_bits_stay_seven():
    mod, inputs = _network(), _correlated()
    rounded = RoundByHessian(mod, inputs)(Quantize(calibrate(mod, [inputs]), precision=Scheme(weight_bits=7))(mod))
    assert max(np.abs(get_params(rounded)[name]).max() for name in ("a.weight", "b.weight", "f.weight")) == 63


def test_same_seed_same_integers():
    mod, inputs = _network(), _correlated()
    quantized = Quantize(calibrate(mod, [inputs]), precision="int4")(mod)
    one, two = (get_params(RoundByHessian(mod, inputs, rows=100, seed=3)(quantized)) for _ in range(2))
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


def test_inputs_that_are_always_zero():
    mod, inputs = _network(), _correlated()
    inputs[0][:, 1] = 0
    quantized = Quantize(calibrate(mod, [inputs]))(mod)
    rounded = RoundByHessian(mod, inputs)(quantized)
    np.testing.assert_allclose(run(rounded, inputs)[0], run(mod, inputs)[0], atol=0.1)


def test_options_out_of_range():
    mod, inputs = _network(), _correlated()
    with pytest.raises(UserError, match="above 0"):
        RoundByHessian(mod, inputs, damping=0)
    with pytest.raises(UserError, match="without calibration samples"):
        RoundByHessian(mod, [])(Quantize(calibrate(mod, [inputs]))(mod))
