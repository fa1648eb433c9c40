"""Criteria on activations against their definitions in NumPy."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneChannels, UserError, get_params, get_surgery, groups
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.pruning.activation_criteria import (
    ActivationMagnitude,
    NonzeroFraction,
    OutputEnergy,
    collect_statistics,
)
from tvmcompress.passes.pruning.importance import prepare


@pytest.fixture(scope="module")
def network(net):
    """dense a (8) -> relu -> dense b, on ten samples."""
    built = net((1, 5))
    hidden = built.emit(relax.op.nn.relu(built.dense(built.x, 8, name="a")), "hidden")
    mod = built.finish(built.dense(hidden, 3, name="b"))
    (group,) = (group for group in groups(mod) if group.frozen is None)
    samples = np.random.default_rng(0).normal(size=(10, 5)).astype("float32")
    params = get_params(mod)
    activations = np.maximum(samples @ params["a.weight"] + params["a.bias"], 0)
    return mod, group, params, samples, activations


def test_mean_magnitude(network):
    mod, group, params, samples, activations = network
    scores = prepare(ActivationMagnitude([samples], batch=4), mod)(group, params)
    np.testing.assert_allclose(scores, activations.mean(0), rtol=1e-5)


def test_fraction_that_is_not_zero(network):
    mod, group, params, samples, activations = network
    scores = prepare(NonzeroFraction([samples]), mod)(group, params)
    np.testing.assert_allclose(scores, (activations != 0).mean(0), rtol=1e-6)


def test_output_energy_is_the_share_in_the_next_layers_square(network):
    mod, group, params, samples, activations = network
    scores = prepare(OutputEnergy([samples]), mod)(group, params)
    # What each hidden unit alone sends to the next layer, squared and averaged.
    alone = np.stack([activations[:, [k]] @ params["b.weight"][[k]] for k in range(8)])
    energy = np.square(alone).sum(2).mean(1)
    np.testing.assert_allclose(scores, energy / energy.sum(), rtol=1e-5)


def test_output_energy_of_a_grouped_convolution(net):
    built = net((1, 3, 4, 4))
    hidden = built.emit(relax.op.nn.relu(built.conv(built.x, 8, name="a")), "hidden")
    mod = built.finish(built.conv(hidden, 8, kernel=1, groups=2, bias=False, name="g"))
    (group,) = (group for group in groups(mod) if group.frozen is None)
    assert group.size == 4
    params, x = get_params(mod), np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype("float32")
    seen = {}
    run(mod, [x], lambda name, value: seen.setdefault(name, value.copy()))
    energy = np.zeros(4)
    for j in range(4):
        for half in range(2):
            channel = seen["hidden"][:, half * 4 + j]
            energy[j] += np.square(channel).mean() * np.square(params["g.weight"][half * 4 : half * 4 + 4, j]).sum()
    np.testing.assert_allclose(prepare(OutputEnergy([x]), mod)(group, params), energy / energy.sum(), rtol=1e-5)


def test_statistics_do_not_depend_on_the_batch(network):
    mod, _, _, samples, _ = network
    one = collect_statistics(mod, [samples], {("hidden", 1)}, batch=1)
    all_at_once = collect_statistics(mod, [samples], {("hidden", 1)}, batch=64)
    np.testing.assert_allclose(one["hidden", 1].square, all_at_once["hidden", 1].square, rtol=1e-6)


def test_the_pass_takes_samples(network):
    mod, _, _, samples, activations = network
    report = get_surgery(PruneChannels(0.5, importance="activation", samples=[samples])(mod))
    assert report.groups[0].removed == sorted(np.argsort(activations.mean(0))[:4].tolist())


def test_samples_are_needed():
    with pytest.raises(UserError, match="needs calibration samples"):
        PruneChannels(0.5, importance="apoz")


def test_samples_of_another_shape_are_refused(network):
    mod, *_ = network
    with pytest.raises(UserError, match="cannot be run"):
        PruneChannels(0.5, importance="apoz", samples=[np.zeros((4, 6), "float32")])(mod)


def test_samples_with_nan_are_refused(network):
    mod, *_ = network
    with pytest.raises(UserError, match="not finite"):
        PruneChannels(0.5, importance="activation", samples=[np.full((4, 5), np.nan, "float32")])(mod)
