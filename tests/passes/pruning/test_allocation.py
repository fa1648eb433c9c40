"""Allocation: which units go, given scores and wishes."""

# mypy: ignore-errors

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress.passes import Group, UserError, groups
from tvmcompress.passes.channels.atoms import Role
from tvmcompress.passes.pruning.allocation import Allocation, allocate, lowest, matches, units_kept


def group(name, size, width=1):
    key = (f"{name}.weight", 0)
    positions = np.arange(size * width).reshape(size, width)
    return Group(
        name, size, {key: positions, ("next.weight", 1): positions}, {key: Role.OUTPUT}, (name, f"{name}.relu")
    )


def test_local_takes_the_fraction_of_every_group():
    groups = [group("a", 4), group("b", 10)]
    scores = {"a": np.array([4, 1, 3, 2]), "b": np.arange(10)[::-1]}
    removed = allocate(groups, scores, Allocation(0.5))
    assert {name: units.tolist() for name, units in removed.items()} == {"a": [1, 3], "b": [5, 6, 7, 8, 9]}


def test_global_compares_scores_in_units_of_their_groups_mean():
    groups = [group("a", 4), group("b", 4)]
    scores = {"a": np.array([1.0, 1, 1, 1]), "b": np.array([300.0, 300, 10, 20])}
    removed = allocate(groups, scores, Allocation(0.25, "global"))
    assert {name: units.tolist() for name, units in removed.items()} == {"b": [2, 3]}


def test_global_empties_no_group():
    groups = [group("a", 3), group("b", 3)]
    scores = {"a": np.zeros(3), "b": np.ones(3)}
    removed = allocate(groups, scores, Allocation(0.5, "global", min_channels=2))
    assert {name: len(units) for name, units in removed.items()} == {"a": 1}


def test_equal_scores_lose_the_later_units():
    assert lowest(np.array([1.0, 0.0, 0.0, 0.0]), 2).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("size", "ratio", "round_to", "kept"),
    [
        (64, 0.5, 8, 32),
        (64, 0.4, 8, 40),
        (60, 0.5, 8, 32),  # 30 lies nearer to 32
        (20, 0.5, 4, 12),  # 10 lies between 8 and 12
        (64, 0.99, 8, 8),  # at least one multiple
        (6, 0.5, 8, 6),  # too small for a multiple
        (10, 0.1, 8, 8),
        (15, 0.1, 8, 8),  # 16 would be more than there are
    ],
)
def test_kept_channels_are_a_multiple(size, ratio, round_to, kept):
    assert units_kept(group("a", size), size * (1 - ratio), Allocation(0.5, round_to=round_to)) == kept


def test_a_unit_of_several_channels_counts_as_several():
    # Eight groups of four channels, kept channels a multiple of eight: units in pairs.
    assert units_kept(group("a", 8, width=4), 3, Allocation(0.5, round_to=8)) == 4
    assert units_kept(group("a", 8, width=4), 0.1, Allocation(0.5, min_channels=9)) == 3


@given(st.integers(2, 100), st.floats(0.01, 0.99), st.integers(1, 16), st.integers(1, 20), st.integers(1, 4))
def test_what_is_kept_keeps_its_promises(size, ratio, round_to, least, width):
    allocation = Allocation(ratio, round_to=round_to, min_channels=least)
    kept = units_kept(group("a", size, width), size * (1 - ratio), allocation)
    assert 1 <= kept <= size
    assert kept == size or kept * width % round_to == 0
    assert kept * width >= min(least, size * width)


def test_patterns_match_layers_parameters_and_activations():
    a = group("conv1", 4)
    for pattern in ("conv1", "conv*", "conv1.weight", "next", "next.weight", "conv1.relu", "c?nv[12]"):
        assert matches(a, pattern), pattern
    assert not matches(a, "conv")
    assert not matches(a, "conv2*")


def test_exclusions_and_own_ratios():
    groups = [group("a", 10), group("b1", 10), group("b2", 10)]
    scores = {g.name: np.arange(10.0) for g in groups}
    removed = allocate(groups, scores, Allocation(0.5, exclude=["a"], ratios={"b1": 0.2, "b*": 0.9}))
    assert {name: len(units) for name, units in removed.items()} == {"b1": 2, "b2": 9}


def test_own_ratios_stay_out_of_the_global_ranking():
    groups = [group("a", 10), group("b", 10)]
    scores = {g.name: np.arange(1.0, 11) for g in groups}
    removed = allocate(groups, scores, Allocation(0.3, "global", ratios={"a": 0.0}))
    assert {name: len(units) for name, units in removed.items()} == {"b": 3}


def test_an_unknown_pattern_names_the_groups_there_are():
    with pytest.raises(UserError, match="'c' matches no prunable group; there are a, b"):
        allocate([group("a", 2), group("b", 2)], {}, Allocation(0.5, ratios={"c": 0.1}))


def test_isomorphic_ranks_groups_that_are_built_alike():
    wide = Group("c", 4, {("c.weight", 0): np.arange(8).reshape(4, 2)}, {("c.weight", 0): Role.OUTPUT})
    groups = [group("a", 4), group("b", 4), wide]
    scores = {"a": np.array([1.0, 9, 9, 9]), "b": np.array([1.0, 1, 1, 9]), "c": np.array([1.0, 2, 3, 4])}
    removed = allocate(groups, scores, Allocation(0.5, "isomorphic", normalization="none"))
    assert {name: units.tolist() for name, units in removed.items()} == {"a": [0], "b": [0, 1, 2], "c": [0, 1]}


@pytest.mark.parametrize(
    ("normalization", "divisor"),
    [("none", lambda s: 1), ("mean", np.mean), ("sum", np.sum), ("max", np.max), ("norm", np.linalg.norm)],
)
def test_normalizations(normalization, divisor):
    groups = [group("a", 4), group("b", 6)]
    scores = {"a": np.array([1.0, 2, 3, 40]), "b": np.array([10.0, 11, 25, 26, 27, 28])}
    removed = allocate(groups, scores, Allocation(0.3, "global", normalization=normalization))
    ranked = sorted((value / divisor(s), name) for name, s in scores.items() for value in s)
    expected = Counter(name for _, name in ranked[:3])
    assert {name: len(units) for name, units in removed.items()} == expected


def test_a_threshold_takes_the_place_of_the_ratio():
    groups = [group("a", 4), group("b", 4)]
    scores = {"a": np.array([1.0, 5, 2, 6]), "b": np.array([0.1, 0.2, 0.3, 0.4])}
    removed = allocate(groups, scores, Allocation(0.5, threshold=3.0))
    # One unit of each group stays, the best.
    assert {name: units.tolist() for name, units in removed.items()} == {"a": [0, 2], "b": [0, 1, 2]}


def test_a_pattern_means_what_a_layer_makes_not_what_it_reads(net):
    network = net((1, 3, 6, 6))
    x = network.batch_norm(network.conv(network.x, 4, name="one"))
    mod = network.finish(network.head(network.conv(network.relu(x), 6, name="two")))
    one, two = (next(g for g in groups(mod) if g.name == name) for name in ("one", "two"))
    assert ("two.weight", 1) in one.members
    assert all(matches(one, pattern) for pattern in ("one", "one.weight", "bn*"))
    assert not any(matches(one, pattern) for pattern in ("two", "two.weight", "classifier"))
    assert [matches(two, p) for p in ("one", "two", "classifier")] == [False, True, False]
    scores = {"one": np.arange(4), "two": np.arange(6)}
    # The classifier's own outputs stay in any case; that is no mistake.
    removed = allocate([one, two], scores, Allocation(0.5, exclude=["two", "classifier"]))
    assert list(removed) == ["one"]
    with pytest.raises(UserError, match="nobody"):
        allocate([one, two], scores, Allocation(0.5, exclude=["nobody"]))
