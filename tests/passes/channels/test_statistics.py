"""Rules of statistics over channels and of normalizations: what was removed is reckoned with as zeros."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneChannels, get_surgery, groups, zero_channels
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.module_params import static_shape

op, nn = relax.op, relax.op.nn
CASES = {}


def case(**expected):
    """Register a network together with the sizes of its prunable groups."""

    def register(build):
        CASES[build.__name__] = build, expected
        return build

    return register


@case(a=6)
def statistics_over_channels(Net):
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 6, name="a")
    return net.finish(net.mean(x, axes=[1]), net.emit(op.max(x, [1])), net.emit(op.min(net.relu(x), [1, 2])))


@case(a=4, b=4)
def sum_of_padding(Net, value=0.0):
    net = Net((1, 3, 6, 6))
    a = net.conv(net.x, 4, name="a")
    padded = net.emit(nn.pad(a, [0, 0, 2, 2, 0, 0, 0, 0], "constant", value))
    return net.finish(net.mean(net.add(padded, net.conv(a, 8, name="b")), axes=[1]))


@case(a=4)
def sum_of_padding_with_ones(Net):
    return sum_of_padding(Net, 1.0)


@case()
def statistics_that_zeros_would_change(Net):
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 6, name="a")
    return net.finish(net.emit(op.variance(x, [1])), net.mean(net.emit(op.exp(net.conv(net.x, 6, name="b"))), axes=[1]))


@case(a=6)
def positions_convolved_alone(Net):
    net = Net((1, 4, 5))
    rows = net.dense(net.x, 6, name="a")
    y = net.emit(nn.conv1d(rows, net.param("mix.weight", (4, 4, 1))), "mix")
    return net.finish(net.dense(net.mul(y, rows), 3))


@case()
def channels_that_a_kernel_slides_over(Net):
    net = Net((1, 4, 5))
    y = net.emit(nn.conv1d(net.dense(net.x, 6, name="a"), net.param("mix.weight", (4, 4, 3))), "mix")
    return net.finish(net.dense(y, 3))


@case(a=6)
def batch_norm(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.head(net.relu(net.batch_norm(net.conv(net.x, 6, bias=False, name="a")))))


@case(a=4)
def group_norm(Net):
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 12, name="a")
    x = net.emit(nn.group_norm(x, net.param("g", (12,), 0.5), net.param("b", (12,)), 4, 1, [2, 3]))
    return net.finish(net.head(net.relu(x)))


@case(a=6)
def instance_norm(Net):
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 6, name="a")
    x = net.emit(nn.instance_norm(x, net.param("g", (6,), 0.5), net.param("b", (6,)), 1, [2, 3]))
    return net.finish(net.head(net.relu(x)))


@case(fc1=8, fc2=6)
def layer_norm(Net):
    net = Net((1, 7, 12))
    x = net.dense(net.x, 8, name="fc1")
    x = net.emit(nn.layer_norm(x, net.param("g", (8,), 0.5), net.param("b", (8,)), -1))
    return net.finish(net.dense(net.emit(nn.gelu(net.dense(x, 6, name="fc2"))), 4))


@case(a=6)
def layer_norm_of_images(Net):
    net = Net((1, 3, 4, 4))
    x = net.conv(net.x, 6, name="a")
    scale, shift = net.param("g", (6, 4, 4), 0.5), net.param("b", (6, 4, 4))
    x = net.emit(nn.layer_norm(x, scale, shift, [1, 2, 3]))
    return net.finish(net.head(net.emit(nn.layer_norm(x, net.param("g2", (6,), 0.5), net.param("b2", (6,)), 1))))


@case()
def layer_norm_of_what_does_not_vanish(Net):
    net = Net((1, 7, 12))
    x = net.emit(op.sigmoid(net.dense(net.x, 8, name="fc1")))
    return net.finish(net.dense(net.layer_norm(x), 4))


@case(a=6)
def group_norm_of_one_group(Net):
    net = Net((1, 3, 4, 4))
    x = net.conv(net.x, 6, name="a")
    scale, shift = net.param("g", (6,), 0.5), net.param("b", (6,))
    return net.finish(net.head(net.relu(net.emit(nn.group_norm(x, scale, shift, 1, 1, [2, 3])))))


@case(fc1=8, fc2=6)
def rms_norm(Net):
    net = Net((1, 7, 12))
    x = net.emit(nn.rms_norm(net.dense(net.x, 8, name="fc1"), net.param("g", (8,), 0.5), -1))
    return net.finish(net.dense(net.emit(nn.silu(net.dense(x, 6, name="fc2"))), 4))


@case()
def softmax_over_channels(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.emit(nn.softmax(net.conv(net.x, 6, name="a"), axis=1)))


@pytest.mark.parametrize("name", CASES)
def test_groups(name, net):
    build, expected = CASES[name]
    found = groups(build(net))
    assert {group.name: group.size for group in found if group.frozen is None} == expected
    assert all(group.frozen for group in found if group.frozen is not None)


PRUNABLE = [name for name, (_, expected) in CASES.items() if expected]


@pytest.mark.parametrize("ratio", [0.3, 0.7])
@pytest.mark.parametrize("name", PRUNABLE)
def test_pruned_equals_zeroed(name, ratio, net, assert_exact):
    assert_exact(CASES[name][0](net), ratio)


@pytest.mark.parametrize("name", PRUNABLE)
def test_the_pruned_module_compiles(name, net, assert_exact):
    assert_exact(CASES[name][0](net), 0.5, on_vm=True)


@pytest.mark.parametrize("name", PRUNABLE)
def test_what_was_pruned_can_be_pruned_again(name, net):
    module = CASES[name][0](net)
    once = PruneChannels(0.3)(module)
    twice = PruneChannels(0.5)(once)
    before, after = ({g.name: g.size for g in groups(m) if g.frozen is None} for m in (once, twice))
    assert after.keys() == before.keys()
    assert all(after[name] < before[name] for name in before)
    x = np.random.default_rng(0).normal(size=static_shape(module["main"].params[0])).astype("float32")
    expected = run(zero_channels(module, get_surgery(twice)), [x])
    for value, other in zip(run(twice, [x]), expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5)
