"""Damage behind the repair: what can be made good costs little, and decides how units leave."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneChannels, PruneToBudget, UserError, attach_params, detach_params, get_surgery
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.channels import analyze
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.pruning.importance import get_criterion, prepare, score
from tvmcompress.passes.repair.reconstruct import Reconstruct
from tvmcompress.passes.repair.repaired_damage import Trial


def with_values(mod, **values):
    bare, params = detach_params(mod)
    return attach_params(bare, params | values)


def samples(count=60, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 4, 5, 5)).astype("float32")


@pytest.fixture(scope="module")
def copies(net):
    """Half of the channels of `a` are copies of the others; those of `b` all differ."""
    built = net((1, 4, 5, 5))
    x = built.relu(built.conv(built.relu(built.conv(built.x, 8, name="a")), 8, name="b"))
    mod = built.finish(built.conv(x, 3, name="c"))
    params = detach_params(mod)[1]
    weight, bias = params["a.weight"], params["a.bias"]
    return with_values(mod, **{"a.weight": np.tile(weight[:4], (2, 1, 1, 1)), "a.bias": np.tile(bias[:, :4], (1, 2, 1, 1))})


def test_what_the_readers_make_good_costs_nothing(copies):
    criterion = prepare(get_criterion("repaired", [samples()]), copies)
    params = detach_params(copies)[1]
    a, b = (np.sort(score(criterion, group, params)) for group in analyze(copies).groups)
    # Shares of 0.2 and 0.4 are two and three units.
    assert a[:3].sum() < 0.01 * b[:3].sum()
    assert a.sum() > 0.05
    # Those that can be spared leave before any other does.
    small = PruneToBudget(macs=0.7, importance="repaired", samples=[samples()])(copies)
    assert [(group.name, len(group.kept)) for group in get_surgery(small).groups] == [("a", 5)]


def test_the_curve_is_the_error_that_is_measured(copies):
    """Against the same done step by step: the last point of a curve is what `Reconstruct` leaves."""
    x = samples()
    graph, params = analyze(copies), detach_params(copies)[1]
    group = graph.groups[1]
    scores = score(prepare(get_criterion("repaired", [x]), copies), group, params)
    ranking = score(prepare(get_criterion("reconstruction", [x]), copies), group, params)
    order = np.lexsort((-np.arange(8), ranking))
    small = PruneChannels(0.75, importance=lambda g, _: np.argsort(order).astype(float), exclude=["a"])(copies)
    # Three of five samples solve, two compare.
    repaired = Reconstruct(copies, [x[24:]], ridge=1e-3, only=["b.weight", "c.weight"])(small)
    wanted, found = (run(mod, [x[:24]])[0].astype(np.float64) for mod in (copies, repaired))
    assert scores[order][:6].sum() == pytest.approx(np.square(wanted - found).mean() / wanted.var(), rel=1e-3)


def test_probabilities_are_compared_by_their_divergence(net):
    built = net((1, 4, 5, 5))
    logits = built.dense(built.reshape(built.relu(built.conv(built.x, 4)), 1, 100), 3)
    mod = built.finish(built.emit(relax.op.nn.softmax(logits, axis=-1)))
    trial = Trial(mod, [samples(10)])
    wanted = run(mod, [samples(10)[:4]])[0].astype(np.float64)
    even = np.full((4, 3), 1 / 3)
    expected = (np.log(3) + (wanted * np.log(wanted)).sum(1)).mean()
    assert trial.compare([even.astype("float32")]) == pytest.approx(expected, rel=1e-4)
    assert trial.compare([wanted.astype("float32")]) == pytest.approx(0, abs=1e-6)
    assert trial.compare([np.full((4, 3), np.nan, "float32")]) == np.inf


def linear(net, rows, reader):
    """Channels without an activation behind them: `rows` of what the four inputs are, read through `reader` of them."""
    built = net((1, 4, 5, 5))
    mod = built.finish(built.conv(built.conv(built.x, len(rows), name="a", kernel=1), 5, name="b"))
    a = np.array(rows, "float32").reshape(len(rows), 4, 1, 1)
    return with_values(mod, **{"a.weight": a, "b.weight": detach_params(mod)[1]["b.weight"][:, reader]})


def test_two_that_are_read_alike_are_folded(net):
    """Their sum is all that is read: the merged channel is exact, and what either tells alone is not."""
    mod = linear(net, [[0, 0, 5, 0], [1, 0, 0, 0], [0, 1, 0, 0]], [0, 1, 1])
    small = PruneChannels(0.34, selection="best", samples=[samples()])(mod)
    (group,) = get_surgery(small).groups
    assert group.merged["a.weight:0"] == [(1, [1, 2], [0.5, 0.5])]
    x = samples(1, 5)
    expected = run(mod, [x])[0]
    np.testing.assert_allclose(run(small, [x])[0], expected, atol=1e-5 * np.abs(expected).max())


def test_one_that_the_others_tell_is_removed(net):
    """Like none of the others, but their sum: nothing is lost by its removal, and something by merging any two."""
    mod = linear(net, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 1, 1, 0]], [0, 1, 2, 3])
    small = PruneChannels(0.25, selection="best", importance="reconstruction", samples=[samples()])(mod)
    (group,) = get_surgery(small).groups
    assert (len(group.kept), group.merged) == (3, {})


def test_it_takes_samples_to_compare(copies):
    with pytest.raises(UserError, match="choose between removing and folding takes calibration samples"):
        PruneChannels(0.5, selection="best")
    with pytest.raises(UserError, match="at least two calibration samples"):
        PruneChannels(0.5, importance="repaired", samples=[samples(1)])(copies)
    with pytest.raises(UserError, match="needs calibration samples"):
        PruneChannels(0.5, importance="repaired")
    with pytest.raises(UserError, match="cannot be run"):
        Trial(copies, [samples()[:, :3]])
