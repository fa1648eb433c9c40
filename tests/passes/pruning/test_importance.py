"""Importance criteria against their definitions in NumPy."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import UserError, get_params, groups
from tvmcompress.passes.pruning.importance import CRITERIA, criterion, get_criterion, score, unit_values


@pytest.fixture(scope="module")
def coupled(net):
    """conv1 (6 channels) -> batch norm -> depthwise -> conv2, and its only coupled group."""
    network = net((1, 3, 4, 4))
    x = network.batch_norm(network.conv(network.x, 6, name="conv1"))
    x = network.conv(network.relu(network.depthwise(x, name="dw")), 1, name="conv2")
    mod = network.finish(x)
    (group,) = (group for group in groups(mod) if group.frozen is None)
    return group, get_params(mod)


def test_l1_sums_magnitudes_of_all_coupled_weights(coupled):
    group, params = coupled
    expected = (
        np.abs(params["conv1.weight"]).sum((1, 2, 3))
        + np.abs(params["dw.weight"]).sum((1, 2, 3))
        + np.abs(params["conv2.weight"]).sum((0, 2, 3))
    )
    np.testing.assert_allclose(score(get_criterion("l1"), group, params), expected, rtol=1e-6)


def test_l2_is_the_norm_of_all_coupled_weights(coupled):
    group, params = coupled
    expected = np.sqrt(
        np.square(params["conv1.weight"]).sum((1, 2, 3))
        + np.square(params["dw.weight"]).sum((1, 2, 3))
        + np.square(params["conv2.weight"]).sum((0, 2, 3))
    )
    np.testing.assert_allclose(score(get_criterion("l2"), group, params), expected, rtol=1e-6)


def test_unit_values_follow_several_positions_a_unit(net):
    network = net((1, 3, 2, 2))
    x = network.reshape(network.conv(network.x, 4, name="conv"), 1, 16)
    mod = network.finish(network.dense(x, 3, name="fc"))
    (group,) = (group for group in groups(mod) if group.frozen is None)
    params = get_params(mod)
    values = unit_values(group, params, ("fc.weight", 0))
    np.testing.assert_array_equal(values, params["fc.weight"].reshape(4, 12))


def test_unknown_criteria_are_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"choose one of .*l1, l2"):
        get_criterion("l3")


def test_criteria_register(coupled, monkeypatch):
    group, params = coupled
    # What is registered here is gone afterwards: other tests list what there is.
    monkeypatch.setattr(CRITERIA, "_entries", dict(CRITERIA._entries))

    @criterion("test-constant")
    def constant(group, params):
        return np.full(group.size, 7)

    assert "test-constant" in CRITERIA
    assert score(get_criterion("test-constant"), group, params).tolist() == [7.0] * 6


def test_scores_that_are_not_finite_are_refused(coupled):
    group, params = coupled
    with pytest.raises(UserError, match="not finite"):
        score(lambda group, params: np.full(group.size, np.nan), group, params)
