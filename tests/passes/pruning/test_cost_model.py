"""What a choice of units costs: the closed form against the rewritten network."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.channels import analyze, remove_units
from tvmcompress.passes.graph.analysis import count_macs, count_params
from tvmcompress.passes.graph.module_params import get_params
from tvmcompress.passes.graph.peak_memory import peak_activations
from tvmcompress.passes.pruning.cost_model import CostModel

op, nn = relax.op, relax.op.nn


def residual(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 8))
    y = net.conv(net.relu(net.conv(x, 6, stride=2)), 12)
    return net.finish(net.head(net.relu(net.add(y, net.conv(x, 12, kernel=1, stride=2)))))


def concatenated(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 6))
    x = net.concat(x, net.depthwise(net.relu(net.conv(x, 5, kernel=1))))
    return net.finish(net.dense(net.reshape(net.conv(x, 4), 1, 256), 3))


def grouped(Net):
    net = Net((1, 4, 6, 6))
    x = net.relu(net.conv(net.relu(net.conv(net.x, 12, kernel=1)), 12, groups=3))
    return net.finish(net.head(net.emit(nn.conv2d_transpose(x, net.param("up", (12, 5, 2, 2)), strides=2))))


def attention(Net):
    net = Net((1, 5, 12))
    q, k, v = (net.reshape(net.dense(net.x, 12, name=name), 1, 5, 2, 6) for name in "qkv")
    q, k, v = net.permute(q, 0, 2, 1, 3), net.permute(k, 0, 2, 3, 1), net.permute(v, 0, 2, 1, 3)
    scores = net.emit(nn.softmax(net.emit(op.matmul(q, k))))
    y = net.reshape(net.permute(net.emit(op.matmul(scores, v)), 0, 2, 1, 3), 1, 5, 12)
    return net.finish(net.dense(y, 4, name="out"))


NETWORKS = [residual, concatenated, grouped, attention]


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_cost_is_that_of_the_rewritten_network(build, net, data):
    mod = build(net)
    graph = analyze(mod)
    assert graph.groups
    model = CostModel(mod, graph.groups)
    removed = np.array([data.draw(st.integers(0, group.size - 1), group.name) for group in graph.groups])
    units = {group.name: np.arange(count) for group, count in zip(graph.groups, removed) if count}
    pruned = remove_units(mod, graph, units)
    expected = {
        "macs": count_macs(pruned),
        "params": count_params(pruned),
        "constants": 4 * count_params(pruned),
        "ram": 4 * peak_activations(pruned),
    }
    assert model.cost(removed) == pytest.approx(expected)


@pytest.mark.parametrize("build", NETWORKS, ids=lambda build: build.__name__)
def test_savings_are_the_difference_that_a_unit_makes(build, net):
    mod = build(net)
    groups = analyze(mod).groups
    model = CostModel(mod, groups)
    removed = np.array([group.size // 3 for group in groups])
    savings, now = model.savings(removed), model.cost(removed)
    for index, group in enumerate(groups):
        one_more = model.cost(removed + (np.arange(len(groups)) == index))
        for name in ("macs", "params", "constants"):
            saved = now[name] - one_more[name]
            # Exact where the unit meets every tensor once; a tensor that it meets on two axes saves a little less.
            assert saved <= savings[name][index] * (1 + 1e-9), (group.name, name)
            assert saved >= 0.7 * savings[name][index], (group.name, name)


def test_integers_take_a_byte_and_nine_bytes_a_channel(net):
    mod = residual(net)
    whole = CostModel(mod, analyze(mod).groups, "int8").whole
    values = get_params(mod).values()
    weights = sum(value.size for value in values if sum(dim > 1 for dim in value.shape) > 1)
    assert whole["constants"] == weights + 9 * (count_params(mod) - weights)
    assert whole["ram"] == peak_activations(mod)
