"""RoundWeights: learned rounding is never worse than rounding to nearest, near the best there is, and the same again."""

# mypy: ignore-errors

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import LowerQDQ, Quantize, RoundWeights, UserError, calibrate, get_params, get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.quantization.quantized_layers import quantized_layers
from tvmcompress.passes.repair.round_weights import _Descent

from ..small_models import model, weights
from .test_round_by_hessian import _correlated, _network

op = relax.op
QUICK = {"iterations": 300, "batch": 128, "learning_rate": 0.05}


def _dense(seed=0, size=6, outputs=3):
    """A dense layer with a ReLU behind it, and correlated inputs."""
    rng = np.random.default_rng(seed)
    params = weights(seed, w=(size, outputs), b=(outputs,))
    mod = model(lambda x, p: op.nn.relu(op.add(op.matmul(x, p["w"]), p["b"])), (1, size), params=params)
    x = (rng.normal(size=(200, size)) @ rng.normal(size=(size, size))).astype(np.float32)
    return mod, [x]


def _errors(mod, quantized, inputs):
    """Squared error of every output behind the ReLU, rounding of the result left aside."""
    found = {}

    def tap(name, value):
        found[name] = value.astype(np.float64)

    run(mod, inputs, tap)
    wanted = found["w.relu"]
    run(quantized, inputs, tap)
    return np.square(found["w.relu"] - wanted).sum(0)


@given(seed=st.integers(0, 1000), precision=st.sampled_from(["int4", "int8"]))
@settings(max_examples=15, deadline=None)
def test_never_worse_than_nearest(seed, precision):
    mod, inputs = _dense(seed)
    quantized = Quantize(calibrate(mod, [inputs]), precision=precision)(mod)
    rounded = RoundWeights(mod, inputs, compensate=False, **QUICK)(quantized)
    before, after = _errors(mod, quantized, inputs), _errors(mod, rounded, inputs)
    assert (after <= before * (1 + 1e-4) + 1e-9).all()
    changed = get_params(rounded)["w"].astype(int) - get_params(quantized)["w"]
    assert np.abs(changed).max() <= 1, "rounded up or down, no further"


def test_near_the_best_of_all_roundings():
    """Against every one of the 2^8 ways to round each output's weights."""
    ratios = []
    for seed in range(4):
        mod, inputs = _dense(seed, size=8, outputs=2)
        quantized = Quantize(calibrate(mod, [inputs]), precision="int4")(mod)
        rounded = RoundWeights(mod, inputs, compensate=False, iterations=800, batch=200, learning_rate=0.03)(quantized)
        (layer,) = quantized_layers(quantized)[0].values()
        steps = layer.weight.steps[0]
        scale = np.float32((max(inputs[0].max(), 0) - min(inputs[0].min(), 0)) / 255)
        x = np.rint(inputs[0] / scale) * scale
        params = get_params(mod)
        wanted = np.maximum(inputs[0] @ params["w"] + params["b"], 0)
        after = _errors(mod, rounded, inputs)
        nearest = _errors(mod, quantized, inputs)
        for o in range(2):
            base = np.floor(params["w"][:, o] / steps[o])
            ways = np.array(list(itertools.product((0, 1), repeat=8))) + base
            sums = x @ (np.clip(ways, -8, 7) * steps[o]).T + layer.bias.real().reshape(-1)[o]
            best = np.square(np.maximum(sums, 0) - wanted[:, o : o + 1]).sum(0).min()
            ratios.append((after[o] / best, nearest[o] / best))
    learned, plain = np.exp(np.log(np.array(ratios)).mean(0))
    assert learned < 1.25
    assert plain > 1.5


def test_gradient_against_differences():
    rng = np.random.default_rng(0)
    x, steps = rng.normal(size=(2, 40, 5)), rng.uniform(0.1, 0.3, (2, 3, 5))
    targets, offsets = rng.normal(size=(2, 40, 3)), rng.normal(size=(2, 1, 3))
    descent = _Descent(x, targets, offsets, steps, (0.0, 1.5))
    integers, index = rng.normal(0, 4, (2, 3, 5)), np.arange(40)

    def loss(values):
        sums = np.einsum("grk,gok->gro", x, values * steps) + offsets
        return np.square(np.clip(sums, 0, 1.5) - np.clip(targets, 0, 1.5)).sum() / 40

    gradient = descent.gradient(integers, index)
    for place in itertools.product(range(2), range(3), range(5)):
        moved = np.zeros_like(integers)
        moved[place] = 1e-5
        expected = (loss(integers + moved) - loss(integers - moved)) / 2e-5
        assert gradient[place] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kinds", [{}, {"groups": 2}, {"groups": 8}, {"strides": 2}])
def test_the_result_gets_better(kinds):
    mod, inputs, unseen = _network(**kinds), _correlated(), _correlated(seed=2)
    quantized = Quantize(calibrate(mod, [inputs]), precision="int4")(mod)
    seen = []
    rounded = RoundWeights(mod, inputs, on_progress=lambda *at: seen.append(at), **QUICK)(quantized)
    wanted = run(mod, unseen)[0]
    before, after = (np.square(run(LowerQDQ()(m), unseen)[0] - wanted).mean() for m in (quantized, rounded))
    assert after < 0.7 * before
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "f")]
    assert not get_remarks(rounded)


def test_same_seed_same_integers():
    mod, inputs = _network(), _correlated()
    quantized = Quantize(calibrate(mod, [inputs]), precision="int4")(mod)
    one, two, other = (
        get_params(RoundWeights(mod, inputs, iterations=50, batch=64, rows=200, seed=seed)(quantized)) for seed in (1, 1, 2)
    )
    assert all(np.array_equal(value, two[name]) for name, value in one.items())
    assert not all(np.array_equal(value, other[name]) for name, value in one.items())


def test_options_out_of_range():
    mod, inputs = _dense()
    with pytest.raises(UserError, match="needs iterations"):
        RoundWeights(mod, inputs, iterations=0)
