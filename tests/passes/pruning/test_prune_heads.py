"""PruneHeads: whole heads go, and the rest computes what zeroed heads would."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import UserError, get_params, get_remarks, get_surgery, groups, zero_channels
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.pruning.prune_heads import PruneHeads, find_heads

op, nn = relax.op, relax.op.nn
TOKENS, HEADS, WIDTH = 5, 4, 6


def _attend(net, q, k, v):
    scores = net.emit(nn.softmax(net.emit(op.matmul(q, net.permute(k, 0, 1, 3, 2))), axis=-1))
    y = net.permute(net.emit(op.matmul(scores, v)), 0, 2, 1, 3)
    return net.dense(net.reshape(y, 1, TOKENS, HEADS * WIDTH), 12, name="proj")


def separate(Net, heads=HEADS, width=WIDTH):
    net = Net((1, TOKENS, 12))
    parts = (net.dense(net.x, heads * width, name=name) for name in ("q", "k", "v"))
    q, k, v = (net.permute(net.reshape(y, 1, TOKENS, heads, width), 0, 2, 1, 3) for y in parts)
    return net.finish(net.add(net.x, _attend(net, q, k, v)))


def fused(Net):
    net = Net((1, TOKENS, 12))
    qkv = net.dense(net.x, 3 * HEADS * WIDTH, name="qkv")
    qkv = net.permute(net.reshape(qkv, 1, TOKENS, 3, HEADS, WIDTH), 2, 0, 3, 1, 4)
    q, k, v = (net.emit(op.squeeze(part, [0])) for part in net.split(qkv, 3, axis=0))
    return net.finish(net.add(net.x, _attend(net, q, k, v)))


def operator(Net):
    net = Net((1, TOKENS, 12))
    parts = (net.dense(net.x, HEADS * WIDTH, name=name) for name in ("q", "k", "v"))
    y = net.emit(nn.attention(*(net.reshape(y, 1, TOKENS, HEADS, WIDTH) for y in parts)))
    return net.finish(net.dense(net.reshape(y, 1, TOKENS, HEADS * WIDTH), 12, name="proj"))


@pytest.mark.parametrize("build", [separate, fused, operator], ids=lambda build: build.__name__)
def test_heads_go_whole_and_equal_zeroed_ones(build, net):
    mod = build(net)
    pruned = PruneHeads(0.5)(mod)
    report = get_surgery(pruned)
    (group,) = report.groups
    assert (group.size, len(group.kept)) == (HEADS, 2)
    assert get_params(pruned)["proj.weight"].shape == (2 * WIDTH, 12)
    for positions in group.members.values():
        # Whole runs of a head's width.
        assert np.asarray(positions).reshape(-1, WIDTH)[:, 0].tolist() == positions[::WIDTH]
        assert all(start % WIDTH == 0 for start in positions[::WIDTH])
    x = np.random.default_rng(1).normal(size=(1, TOKENS, 12)).astype("float32")
    expected = run(zero_channels(mod, report), [x])[0]
    np.testing.assert_allclose(run(pruned, [x])[0], expected, rtol=1e-5, atol=1e-5)


def test_heads_are_told_from_their_width_where_both_are_equal(net):
    net_ = net((1, TOKENS, 9))
    qkv = net_.permute(net_.reshape(net_.dense(net_.x, 27, name="qkv"), 1, TOKENS, 3, 3, 3), 2, 0, 3, 1, 4)
    q, k, v = (net_.emit(op.squeeze(part, [0])) for part in net_.split(qkv, 3, axis=0))
    scores = net_.emit(nn.softmax(net_.emit(op.matmul(q, net_.permute(k, 0, 1, 3, 2))), axis=-1))
    y = net_.reshape(net_.permute(net_.emit(op.matmul(scores, v)), 0, 2, 1, 3), 1, TOKENS, 9)
    _, (heads,) = find_heads(net_.finish(net_.dense(y, 4, name="proj")))
    assert heads.members["qkv.weight", 1].tolist() == [
        [h * 3 + d + part * 9 for part in range(3) for d in range(3)] for h in range(3)
    ]


def test_min_heads(net):
    report = get_surgery(PruneHeads(0.9, min_heads=3)(separate(net)))
    assert len(report.groups[0].kept) == 3


def test_a_network_without_attention_is_left_alone(net):
    network = net((1, 3, 4, 4))
    mod = network.finish(network.head(network.conv(network.x, 8)))
    pruned = PruneHeads(0.5)(mod)
    assert get_surgery(pruned) is None
    assert "no attention heads" in get_remarks(pruned)[0].message


def test_options_are_checked():
    with pytest.raises(UserError, match="between 0 and 1"):
        PruneHeads(1.0)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_the_width_of_the_embedding_is_a_group_of_channels(norm, net, assert_exact):
    """What runs through all blocks leaves everywhere: embedding, normalizations, projections and additions."""
    network = net((1, TOKENS, 12))
    x = network.dense(network.x, 16, name="embed")

    def normalize(y):
        gamma = network.param(network.name("gamma"), (16,), 0.5)
        return network.layer_norm(y) if norm == "layer" else network.emit(nn.rms_norm(y, gamma, -1))

    y = normalize(x)
    parts = (network.dense(y, HEADS * WIDTH, name=name) for name in ("q", "k", "v"))
    q, k, v = (network.permute(network.reshape(y, 1, TOKENS, HEADS, WIDTH), 0, 2, 1, 3) for y in parts)
    scores = network.emit(nn.softmax(network.emit(op.matmul(q, network.permute(k, 0, 1, 3, 2))), axis=-1))
    y = network.permute(network.emit(op.matmul(scores, v)), 0, 2, 1, 3)
    x = network.add(x, network.dense(network.reshape(y, 1, TOKENS, HEADS * WIDTH), 16, name="proj"))
    x = network.add(x, network.dense(network.relu(network.dense(normalize(x), 20, name="wide")), 16, name="narrow"))
    mod = network.finish(network.dense(normalize(x), 3, name="classifier"))
    (group,) = (group for group in groups(mod) if ("embed.weight", 1) in group.members and group.frozen is None)
    assert group.size == 16
    assert {("q.weight", 0), ("proj.weight", 1), ("wide.weight", 0), ("narrow.weight", 1)} <= set(group.members)
    pruned = assert_exact(mod, 0.5)
    assert get_params(pruned)["embed.weight"].shape == (12, 8)
