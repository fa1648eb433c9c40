"""Criteria on weights against their definitions in NumPy."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneChannels, UserError, get_params, groups
from tvmcompress.passes.pruning.importance import get_criterion, score
from tvmcompress.passes.pruning.weight_criteria import BatchNormScale, GeometricMedian, RandomScore, WeightNorm


@pytest.fixture(scope="module")
def coupled(net):
    """conv1 (6 channels) -> batch norm -> conv2, and its only group."""
    network = net((1, 3, 4, 4))
    x = network.batch_norm(network.conv(network.x, 6, bias=False, name="conv1"))
    mod = network.finish(network.conv(network.relu(x), 1, name="conv2"))
    (group,) = (group for group in groups(mod) if group.frozen is None)
    params = get_params(mod)
    gamma = next(value for name, value in params.items() if name.endswith("gamma"))
    return group, params, params["conv1.weight"].reshape(6, -1), params["conv2.weight"][0].reshape(6, -1), gamma


@pytest.mark.parametrize(
    ("by", "reduce"),
    [("sum", np.sum), ("mean", np.mean), ("max", np.max), ("product", np.prod), ("first", lambda a, axis: a[0])],
)
def test_reductions(coupled, by, reduce):
    group, params, first, second, _ = coupled
    expected = reduce(np.stack([np.abs(first).sum(1), np.abs(second).sum(1)]), axis=0)
    np.testing.assert_allclose(WeightNorm(1, by)(group, params), expected, rtol=1e-6)


def test_the_infinity_norm_is_the_largest_weight(coupled):
    group, params, first, second, _ = coupled
    expected = np.maximum(np.abs(first).max(1), np.abs(second).max(1))
    np.testing.assert_allclose(score(get_criterion("linf"), group, params), expected, rtol=1e-6)


def test_batch_norm_scale(coupled):
    group, params, _, _, gamma = coupled
    np.testing.assert_allclose(BatchNormScale()(group, params), np.abs(gamma), rtol=1e-6)


def test_batch_norm_scale_needs_a_batch_norm(net):
    network = net((1, 3, 4, 4))
    mod = network.finish(network.head(network.conv(network.x, 6, name="conv1")))
    with pytest.raises(UserError, match="conv1 runs through no batch normalization"):
        PruneChannels(0.5, importance="bn_scale")(mod)


def test_geometric_median_sums_distances(coupled):
    group, params, first, _, _ = coupled
    expected = [sum(np.linalg.norm(a - b) for b in first.astype(np.float64)) for a in first.astype(np.float64)]
    np.testing.assert_allclose(GeometricMedian()(group, params), expected, rtol=1e-5)


def test_geometric_median_drops_a_duplicate_before_an_outlier(coupled):
    group, params, *_ = coupled
    weight = np.zeros((6, 3, 3, 3), "float32")
    weight[5] = 0.01
    changed = {**params, "conv1.weight": weight}
    scores = GeometricMedian()(group, changed)
    assert scores.argmax() == 5


def test_random_scores_repeat_with_the_seed(coupled):
    group, params, *_ = coupled
    assert (RandomScore(1)(group, params) == RandomScore(1)(group, params)).all()
    assert (RandomScore(1)(group, params) != RandomScore(2)(group, params)).any()


@pytest.mark.parametrize("make", [lambda: WeightNorm(3), lambda: WeightNorm(2, "median")])
def test_unknown_orders_and_reductions_are_refused(make):
    with pytest.raises(UserError):
        make()
