"""The criterion "reconstruction" against least squares solved anew for every choice."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import UserError, get_params, groups
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.pruning.importance import prepare
from tvmcompress.passes.pruning.reconstruction_criterion import ReconstructionError, channel_covariances, removal_damages


def remaining_error(covariance, weight, left):
    """The variance that is lost when only `left` channels may express all: ridgeless least squares."""
    inner = covariance[np.ix_(left, left)]
    solution = np.linalg.lstsq(inner, covariance[left] @ weight, rcond=None)[0]
    total = np.trace(weight.T @ covariance @ weight)
    explained = np.trace((covariance[left] @ weight).T @ solution)
    return (total - explained) / total


@pytest.mark.parametrize("seed", range(3))
def test_the_damages_are_those_of_least_squares(seed):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    covariance, weight = np.cov(mixed.T), rng.normal(size=(6, 4))
    damages = removal_damages([(covariance, weight, np.arange(6)[:, None])], 6)
    # What leaves first does the least damage of all single removals, as far as the ridge lets it be seen.
    single = [remaining_error(covariance, weight, np.delete(np.arange(6), unit)) for unit in range(6)]
    assert int(np.argmin(damages)) == int(np.argmin(single))
    assert damages.min() == pytest.approx(min(single), rel=0.05, abs=2e-3)


def test_a_duplicate_and_a_sum_cost_nothing():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(500, 4))
    mixed = np.concatenate([base, base[:, :1], base[:, 1:2] + base[:, 2:3]], axis=1)
    damages = removal_damages([(np.cov(mixed.T), rng.normal(size=(6, 3)), np.arange(6)[:, None])], 6)
    order = np.argsort(damages)
    assert (damages[order[:2]] < 1e-2).all()
    assert (damages[order[2:]] > 5e-2).all()
    # One of each dependent set leaves, not both.
    assert not {0, 4} <= set(order[:2].tolist())


def test_units_of_several_channels_leave_together():
    covariance, weight = np.eye(6), np.diag([1.0, 1, 1, 1, 0.1, 0.1])
    damages = removal_damages([(covariance, weight, np.array([[0, 1], [2, 3], [4, 5]]))], 3)
    assert damages[2] == pytest.approx(0.02 / 4.02, rel=0.01)
    assert (damages[:2] > 0.4).all()


def test_on_a_network(net):
    built = net((1, 5))
    hidden = built.emit(relax.op.nn.relu(built.dense(built.x, 8, name="a")), "hidden")
    mod = built.finish(built.dense(hidden, 3, name="b"))
    (group,) = (group for group in groups(mod) if group.frozen is None)
    samples = np.random.default_rng(0).normal(size=(50, 5)).astype("float32")
    params = get_params(mod)
    activations = np.maximum(samples @ params["a.weight"] + params["a.bias"], 0)
    covariance = np.cov(activations.T, bias=True)
    found = channel_covariances(mod, [samples], {("hidden", 1)}, batch=7)[("hidden", 1)]
    np.testing.assert_allclose(found, covariance, rtol=1e-4, atol=1e-6)
    expected = removal_damages([(covariance, params["b.weight"].astype(float), np.arange(8)[:, None])], 8)
    scores = prepare(ReconstructionError([samples]), mod)(group, params)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-6)


def test_without_samples():
    with pytest.raises(UserError, match="needs calibration samples"):
        ReconstructionError(None)


def test_samples_that_are_not_finite(net):
    built = net((1, 5))
    mod = built.finish(built.dense(built.relu(built.dense(built.x, 8)), 3))
    with pytest.raises(UserError, match="not finite"):
        prepare(ReconstructionError([np.full((4, 5), np.nan, "float32")]), mod)
