"""Folding: units that do the same leave without a trace, and what is folded is what a mean and a sum say."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import (
    PruneChannels,
    PruneHeads,
    PruneToBudget,
    Reconstruct,
    UserError,
    attach_params,
    detach_params,
    get_params,
    get_remarks,
    get_surgery,
)
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.channels import analyze
from tvmcompress.passes.channels.atoms import Role
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.pruning.folding import Clusters, cluster, folded
from tvmcompress.passes.pruning.prune_heads import find_heads

op = relax.op


def chain(Net):
    net = Net((2, 4, 6, 6))
    return net.finish(net.conv(net.relu(net.conv(net.relu(net.conv(net.x, 8)), 12)), 2))


def residual(Net):
    net = Net((2, 4, 6, 6))
    x = net.relu(net.conv(net.x, 8))
    for _ in range(2):
        x = net.relu(net.add(x, net.conv(net.relu(net.conv(x, 6)), 8)))
    return net.finish(net.head(x))


def normalized(Net):
    net = Net((2, 4, 6, 6))
    x = net.relu(net.batch_norm(net.conv(net.x, 8, bias=False)))
    return net.finish(net.head(net.relu(net.batch_norm(net.conv(x, 6)))))


def depthwise(Net):
    net = Net((2, 4, 6, 6))
    x = net.relu(net.depthwise(net.relu(net.conv(net.x, 8, kernel=1))))
    return net.finish(net.head(net.relu(net.depthwise(net.conv(x, 12, kernel=1), multiplier=2))))


def grouped(Net):
    net = Net((2, 4, 6, 6))
    x = net.relu(net.conv(net.relu(net.conv(net.x, 16)), 16, groups=2))
    return net.finish(net.head(net.relu(net.conv(x, 8))))


def concatenated(Net):
    net = Net((2, 4, 6, 6))
    a, b = net.relu(net.conv(net.x, 6)), net.silu(net.conv(net.x, 4))
    return net.finish(net.head(net.relu(net.conv(net.concat(a, b), 8))))


def width(Net):
    net = Net((2, 5, 8))
    x = net.layer_norm(net.x)
    return net.finish(net.add(net.x, net.dense(net.silu(net.dense(x, 16)), 8)))


NETWORKS = [chain, residual, normalized, depthwise, grouped, concatenated, width]


def with_copies(mod: tvm.IRModule, groups) -> tvm.IRModule:
    """The module with every second unit a copy of the one before."""
    bare, params = detach_params(mod)
    for group in groups:
        for (name, axis), index in group.members.items():
            if group.roles[name, axis] != Role.INPUT:
                rows = np.moveaxis(params[name], axis, 0)
                rows[index[1::2]] = rows[index[0 : len(index) // 2 * 2 : 2]]
    return attach_params(bare, params)


def inputs_of(mod, seed=3):
    rng = np.random.default_rng(seed)
    var = mod["main"].params[0]
    return rng.standard_normal([int(dim) for dim in var.ty.shape]).astype("float32")


@pytest.mark.parametrize("sampled", [False, True], ids=["weights", "samples"])
@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_copies_are_folded_without_a_trace(build, sampled, net):
    mod = build(net)
    mod = with_copies(mod, analyze(mod).groups)
    x = inputs_of(mod)
    samples = [np.concatenate([inputs_of(mod, seed) for seed in range(8)])] if sampled else None
    small = PruneChannels(0.5, selection="fold", samples=samples)(mod)
    removed = PruneChannels(0.5)(mod)
    expected = run(mod, [x])[0]
    size = float(np.abs(expected).max())
    assert [len(group.kept) for group in get_surgery(small).groups] == [
        len(group.kept) for group in get_surgery(removed).groups
    ]
    assert all(group.merged for group in get_surgery(small).groups)
    np.testing.assert_allclose(run(small, [x])[0], expected, atol=2e-5 * size)
    assert np.abs(run(removed, [x])[0] - expected).max() > 1e-3 * size


def attention(Net):
    net = Net((2, 5, 12))
    heads, size = 4, 6
    parts = (net.dense(net.x, heads * size, name=name) for name in ("q", "k", "v"))
    q, k, v = (net.permute(net.reshape(y, 2, 5, heads, size), 0, 2, 1, 3) for y in parts)
    scores = net.emit(op.nn.softmax(net.emit(op.matmul(q, net.permute(k, 0, 1, 3, 2))), axis=-1))
    y = net.permute(net.emit(op.matmul(scores, v)), 0, 2, 1, 3)
    return net.finish(net.add(net.x, net.dense(net.reshape(y, 2, 5, heads * size), 12, name="proj")))


def test_heads_that_do_the_same_become_one(net):
    mod = attention(net)
    mod = with_copies(mod, find_heads(mod)[1])
    x = inputs_of(mod)
    small = PruneHeads(0.5, selection="fold", samples=[x])(mod)
    assert get_params(small)["q.weight"].shape == (12, 12)
    np.testing.assert_allclose(run(small, [x])[0], run(mod, [x])[0], atol=1e-5)


def test_what_is_summed_over_is_removed(net):
    """Positions of queries and keys are summed over in their product: a merged one would count once for two."""
    mod = attention(net)
    mod = with_copies(mod, analyze(mod).groups)
    small = PruneChannels(0.5, selection="fold")(mod)
    merged = {group.name: bool(group.merged) for group in get_surgery(small).groups}
    assert merged == {"q": False, "v": True}
    (remark,) = [remark for remark in get_remarks(small) if "merged" in remark.message]
    assert (remark.pass_name, remark.subject) == ("PruneChannels", "q")


@I.ir_module
class Before:
    """Two layers; the second and third channel between them become one."""

    @R.function
    def main(
        x: R.Tensor((1, 2), "float32"),
        w1: R.Tensor((2, 3), "float32"),
        b1: R.Tensor((3,), "float32"),
        w2: R.Tensor((3, 1), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            m = R.matmul(x, w1)
            a = R.add(m, b1)
            r = R.nn.relu(a)
            o = R.matmul(r, w2)
            R.output(o)
        return o


@I.ir_module
class After:
    """What is left of it."""

    @R.function
    def main(
        x: R.Tensor((1, 2), "float32"),
        w1: R.Tensor((2, 2), "float32"),
        b1: R.Tensor((2,), "float32"),
        w2: R.Tensor((2, 1), "float32"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            m = R.matmul(x, w1)
            a = R.add(m, b1)
            r = R.nn.relu(a)
            o = R.matmul(r, w2)
            output = o
            R.output(output)
        return output


def test_before_and_after_by_hand():
    params = {
        "w1": np.array([[1, 2, 4], [5, 0, 0]], "float32"),
        "b1": np.array([7, 1, 3], "float32"),
        # Channel 1 counts three times as much as channel 2 in squares: its share is 3/4.
        "w2": np.array([[9], [3**0.5], [1]], "float32"),
    }
    after = PruneChannels(0.34, selection="fold")(attach_params(Before, params))
    tvm.ir.assert_structural_equal(detach_params(after)[0].without_attr("tvmcompress.surgery")["main"], After["main"])
    found = get_params(after)
    np.testing.assert_allclose(found["w1"], [[1, 2.5], [5, 0]])
    np.testing.assert_allclose(found["b1"], [7, 1.5])
    np.testing.assert_allclose(found["w2"], [[9], [1 + 3**0.5]])
    (group,) = get_surgery(after).groups
    ((kept, positions, weights),) = group.merged["w1:1"]
    assert (kept, positions) == (1, [1, 2])
    np.testing.assert_allclose(weights, [0.75, 0.25], rtol=1e-6)
    assert "w2:0" not in group.merged


def test_the_repair_aims_at_the_means(net):
    """A network without activations between: the mean of what two channels give is what their merged weights give."""
    built = net((1, 4, 5, 5))
    mod = built.finish(built.conv(built.conv(built.x, 6, name="a"), 3, name="b"))
    x = np.random.default_rng(0).standard_normal((64, 4, 5, 5)).astype("float32")
    small = PruneChannels(0.5, selection="fold", samples=[x])(mod)
    before = get_params(small)
    after = get_params(Reconstruct(mod, [x], only=["a.weight"])(small))
    # Nothing is to be repaired in the layer that makes them, where the targets are these means.
    np.testing.assert_allclose(after["a.weight"], before["a.weight"], atol=2e-3)
    kept = {"a.weight": np.asarray(get_surgery(small).groups[0].kept)}
    other = get_params(Reconstruct(mod, [x], kept, only=["a.weight"])(small))
    assert np.abs(other["a.weight"] - before["a.weight"]).max() > 0.05
    np.testing.assert_array_equal(after["b.weight"], before["b.weight"])


def test_means_of_means_are_told_of_the_unpruned_network(net):
    built = net((1, 4, 5, 5))
    mod = built.finish(built.conv(built.conv(built.x, 8, name="a"), 3, name="b"))
    params = get_params(mod)
    again = PruneChannels(0.5, selection="fold")(PruneChannels(0.5, selection="fold")(mod))
    report = get_surgery(again)
    assert report == type(report).from_json(report.to_json())
    means = report.means()["a.weight", 0]
    kept = report.kept_positions()["a.weight", 0].tolist()
    assert len(kept) == 2
    for row, position in enumerate(kept):
        shares = means.get(position, {position: 1.0})
        assert sum(shares.values()) == pytest.approx(1)
        expected = sum(share * params["a.weight"][origin] for origin, share in shares.items())
        np.testing.assert_allclose(get_params(again)["a.weight"][row], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        sum(get_params(again)["b.weight"][:, row] for row in range(2)), params["b.weight"].sum(1), rtol=1e-4, atol=1e-5
    )


@given(st.integers(2, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_clusters_are_a_partition(units, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    count = data.draw(st.integers(1, units))
    values = rng.standard_normal((units, 4))
    sizes = rng.random(units) * data.draw(st.sampled_from([0.0, 1.0, 1e6]))
    found = cluster(values @ values.T, sizes, count)
    assert len(found.removed) == units - count
    assert (found.into[found.into] == found.into).all()
    for unit in np.unique(found.into):
        members = found.into == unit
        assert found.weights[members].sum() == pytest.approx(1)
        assert sizes[unit] == sizes[members].max()


def test_the_closest_pairs_are_merged():
    values = np.array([[0.0], [10.0], [0.1], [10.3], [50.0]])
    found = cluster(values @ values.T, np.ones(5), 3)
    assert found.into.tolist() == [0, 1, 0, 1, 4]
    assert found.weights.tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_folding_is_mean_and_sum(net, data):
    """Of a chain, against the definition in NumPy, for any clusters."""
    mod = chain(net)
    graph = analyze(mod)
    group, params = graph.groups[0], get_params(mod)
    into = np.array(data.draw(st.lists(st.integers(0, 2), min_size=8, max_size=8)))
    into[np.unique(into)] = np.unique(into)
    shares = np.array([1 / (into == unit).sum() for unit in into])
    after = get_params(folded(mod, graph, {group.name: Clusters(into, shares)}))
    for unit in np.unique(into):
        members = into == unit
        np.testing.assert_allclose(after["conv1.weight"][unit], params["conv1.weight"][members].mean(0), atol=1e-6)
        np.testing.assert_allclose(after["conv3.weight"][:, unit], params["conv3.weight"][:, members].sum(1), atol=1e-6)
    np.testing.assert_array_equal(get_params(mod)["conv1.weight"], params["conv1.weight"])


def test_a_budget_is_met_by_folding(net):
    mod = residual(net)
    small = PruneToBudget(macs=0.5, selection="fold")(mod)
    report = get_surgery(small)
    assert report.macs_after <= 0.5 * report.macs_before
    assert all(group.merged for group in report.groups)


def test_an_unknown_way_is_refused():
    with pytest.raises(UserError, match="there is no way for units to leave 'melt'"):
        PruneChannels(0.5, selection="melt")
