"""PruneToBudget: budgets are met closely, and what matters less leaves first."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneToBudget, UserError, get_params, get_surgery, groups
from tvmcompress.passes.graph.analysis import count_macs, count_params
from tvmcompress.passes.graph.peak_memory import peak_activations


@pytest.fixture(scope="module")
def network(net):
    """Residual blocks of several widths, with channels of very different weight."""
    built = net((1, 3, 16, 16))
    x = built.relu(built.conv(built.x, 16))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = built.conv(built.relu(built.conv(x, width, stride=stride)), width)
        x = built.relu(built.add(y, built.conv(x, width, kernel=1, stride=stride)))
    return built.finish(built.head(x))


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.2])
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_fractions_are_met(network, kind, fraction):
    pruned = PruneToBudget(**{kind: fraction})(network)
    count = count_macs if kind == "macs" else count_params
    assert fraction - 0.02 <= count(pruned) / count(network) <= fraction


def test_sizes_are_met(network):
    ram = 4 * peak_activations(network)
    pruned = PruneToBudget(max_ram=ram // 2)(network)
    assert 4 * peak_activations(pruned) <= ram // 2
    constants = 4 * count_params(network)
    pruned = PruneToBudget(max_constants=constants // 2)(network)
    assert 0.48 * constants <= 4 * count_params(pruned) <= 0.5 * constants


def test_all_of_several_budgets_are_met(network):
    pruned = PruneToBudget(macs=0.6, params=0.3)(network)
    assert count_macs(pruned) <= 0.6 * count_macs(network)
    assert 0.28 <= count_params(pruned) / count_params(network) <= 0.3


def test_a_budget_that_holds_removes_nothing(network):
    pruned = PruneToBudget(max_ram=1e9)(network)
    assert get_surgery(pruned) is None
    assert count_params(pruned) == count_params(network)


def test_the_damage_for_what_is_saved_decides(net):
    built = net((1, 4, 8, 8))
    x = built.conv(built.conv(built.x, 8, name="a"), 8, name="b")
    mod = built.finish(built.conv(x, 2, name="c"))
    # Both groups save about as much; the units of a are worth nothing, those of b everything.
    worth = {"a": np.arange(8) * 1e-3, "b": 1.0 + np.arange(8)}
    pruned = PruneToBudget(macs=0.7, importance=lambda group, params: worth[group.name], normalization="none")(mod)
    gone = {group.name: group.removed for group in get_surgery(pruned).groups}
    assert list(gone) == ["a"]
    assert gone["a"] == list(range(len(gone["a"])))


def test_widths_are_multiples(network):
    pruned = PruneToBudget(macs=0.5, round_to=4)(network)
    found = [group for group in groups(pruned) if group.frozen is None]
    assert all(group.size % 4 == 0 for group in found)


def test_excluded_groups_and_minimum_stay(network):
    first = next(group for group in groups(network) if group.frozen is None)
    pruned = PruneToBudget(params=0.2, exclude=[first.name], min_fraction=0.25)(network)
    for group in get_surgery(pruned).groups:
        assert group.name != first.name
        assert len(group.kept) >= 0.25 * group.size


def test_weights_change_with_the_samples(network):
    samples = [np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype("float32")]
    pruned = PruneToBudget(macs=0.5, importance="output_energy", samples=samples)(network)
    assert 0.48 <= count_macs(pruned) / count_macs(network) <= 0.5
    assert get_params(pruned)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "a budget needs"),
        ({"macs": 1.5}, "fraction between 0 and 1"),
        ({"max_ram": 0}, "larger than 0 bytes"),
        ({"macs": 0.5, "rounds": 0}, "number of rounds"),
        ({"macs": 0.5, "min_fraction": 1.0}, "min_fraction"),
        ({"macs": 0.5, "exclude": ["nobody"]}, "matches no prunable group"),
        ({"max_ram": 10}, "cannot be met by pruning"),
        ({"macs": 0.01, "min_fraction": 0.5}, "cannot be met by pruning"),
    ],
)
def test_bad_options(network, options, sentence):
    with pytest.raises(UserError, match=sentence):
        PruneToBudget(**options)(network)


def test_rounds_rank_anew_what_is_left(network):
    seen = []

    class Criterion:
        def prepare(self, mod):
            seen.append(count_macs(mod) / count_macs(network))
            return lambda group, params: np.arange(group.size) + 1.0

    pruned = PruneToBudget(macs=0.4, importance=Criterion(), rounds=3)(network)
    assert seen[0] == 1
    assert seen[1:] == [pytest.approx(0.8, abs=0.02), pytest.approx(0.6, abs=0.02)]
    assert 0.38 <= count_macs(pruned) / count_macs(network) <= 0.4
    report = get_surgery(pruned)
    assert report.macs_before == count_macs(network)
    # One share of units stays over all rounds, not of what each round has found.
    once = PruneToBudget(macs=0.4, importance=Criterion(), min_fraction=0.4)(network)
    thrice = PruneToBudget(macs=0.4, importance=Criterion(), min_fraction=0.4, rounds=3)(network)
    for module in (once, thrice):
        for old, new in zip(groups(network), groups(module)):
            assert new.size >= 0.4 * old.size or old.frozen
