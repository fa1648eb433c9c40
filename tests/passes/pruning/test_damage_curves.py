"""Importance from measured damage."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress.passes import PruneToBudget, UserError, get_params, get_surgery, groups
from tvmcompress.passes.pruning.damage_curves import DamageCurves, marginal_damage
from tvmcompress.passes.pruning.importance import get_criterion, prepare


def test_the_sum_of_the_steps_is_the_damage():
    steps = marginal_damage([(0.25, 1.0), (0.5, 3.0), (1.0, 11.0)], 8)
    np.testing.assert_allclose(np.cumsum(steps), [0.5, 1, 2, 3, 5, 7, 9, 11])


def test_a_curve_goes_on_as_it_ended():
    np.testing.assert_allclose(np.cumsum(marginal_damage([(0.5, 1.0)], 4)), [0.5, 1, 1.5, 2])


def test_noise_is_evened_out():
    # A larger cut that did less damage, and a bump.
    steps = marginal_damage([(0.25, 4.0), (0.5, 3.0), (1.0, 8.0)], 4)
    assert (np.diff(steps) >= -1e-12).all()
    np.testing.assert_allclose(steps.sum(), 8.0)


@given(st.lists(st.floats(0, 1e6).map(lambda value: round(value, 6)), min_size=1, max_size=6), st.integers(1, 70))
def test_steps_never_fall(damages, units):
    curve = [((index + 1) / len(damages), damage) for index, damage in enumerate(damages)]
    steps = marginal_damage(curve, units)
    assert steps.shape == (units,)
    assert (steps >= 0).all()
    assert (np.diff(steps) >= -1e-9 * max(damages)).all()
    np.testing.assert_allclose(steps.sum(), max(damages), rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def network(net):
    built = net((1, 4, 8, 8))
    return built.finish(built.conv(built.conv(built.conv(built.x, 8, name="a"), 8, name="b"), 2, name="c"))


def test_ranking_within_is_the_criterions_and_between_the_measurements(network):
    found = [group for group in groups(network) if group.frozen is None]
    importance = DamageCurves(get_criterion("l2"), {"a": [(0.5, 1e-4), (0.9, 1e-3)], "b": [(0.5, 1.0)]})
    pruned = PruneToBudget(macs=0.7, importance=importance, normalization="none")(network)
    gone = {group.name: group.removed for group in get_surgery(pruned).groups}
    assert list(gone) == ["a"]
    norms = get_criterion("l2")(found[0], get_params(network))
    assert sorted(gone["a"]) == sorted(np.argsort(norms)[: len(gone["a"])].tolist())


def test_a_group_that_was_not_measured(network):
    importance = prepare(DamageCurves(get_criterion("l2"), {"a": [(0.5, 1.0)]}), network)
    group = next(group for group in groups(network) if group.name == "b")
    with pytest.raises(UserError, match="group b was not measured"):
        importance(group, get_params(network))


@pytest.mark.parametrize("curve", [[], [(0.5, -1)], [(0.5, np.nan)], [(0.5, 1), (0.4, 2)], [(0.0, 1)], [(1.5, 1)]])
def test_curves_that_are_none(curve):
    with pytest.raises(UserError, match="damage curve of group a"):
        DamageCurves(get_criterion("l2"), {"a": curve})
