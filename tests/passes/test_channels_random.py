"""Random networks from the operator set: pruning any of them equals zeroing the same channels."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvmcompress.passes import groups
from tvmcompress.passes._tvm import relax

op, nn = relax.op, relax.op.nn


def _conv(net, pool, x, draw):
    return net.conv(x, draw(st.sampled_from([2, 4, 6, 8, 12])), kernel=draw(st.sampled_from([1, 3])))


def _grouped(net, pool, x, draw):
    channels = net.shape(x)[1]
    divisors = [g for g in range(1, channels + 1) if channels % g == 0]
    count = draw(st.sampled_from(divisors))
    return net.conv(x, count * draw(st.integers(1, 3)), groups=count)


def _depthwise(net, pool, x, draw):
    return net.depthwise(x, multiplier=draw(st.integers(1, 2)))


def _add(net, pool, x, draw):
    other = draw(st.sampled_from(pool))
    return net.add(x, other) if net.shape(other) == net.shape(x) else net.add(x, net.conv(other, net.shape(x)[1]))


def _gate(net, pool, x, draw):
    scale = net.conv(net.relu(net.conv(net.mean(x), 3, kernel=1)), net.shape(x)[1], kernel=1)
    return net.mul(x, net.emit(op.sigmoid(scale)))


def _concat(net, pool, x, draw):
    return net.concat(x, draw(st.sampled_from(pool)))


def _split(net, pool, x, draw):
    channels = net.shape(x)[1]
    if channels < 2:
        return x
    left, right = net.split(x, [draw(st.integers(1, channels - 1))])
    pool.append(left)
    return right


def _halves_added(net, pool, x, draw):
    if net.shape(x)[1] % 2:
        return x
    left, right = net.split(x, 2)
    return net.add(left, net.relu(right))


def _slice(net, pool, x, draw):
    channels = net.shape(x)[1]
    begin, stride = draw(st.integers(0, channels - 1)), draw(st.integers(1, 3))
    return net.emit(op.strided_slice(x, [1], [begin], [channels], [stride]))


def _shuffle(net, pool, x, draw):
    channels = net.shape(x)[1]
    return net.shuffle(x, draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0])))


def _pad(net, pool, x, draw):
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    return net.emit(nn.pad(x, [0, 0, before, after, 0, 0, 0, 0]))


def _normalize(net, pool, x, draw):
    channels = net.shape(x)[1]
    if draw(st.booleans()):
        return net.batch_norm(x)
    count = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    gamma, beta = net.param(net.name("gamma"), (channels,), 0.5), net.param(net.name("beta"), (channels,))
    return net.emit(nn.group_norm(x, gamma, beta, count, 1, [2, 3]))


def _activate(net, pool, x, draw):
    if draw(st.booleans()):
        x = net.emit(op.clip(x, -4, 4))
        return net.emit(draw(st.sampled_from([nn.relu, nn.gelu, op.sigmoid, op.tanh, op.exp]))(x))
    return net.add(x, relax.const(np.linspace(-1, 1, net.shape(x)[1], dtype="float32").reshape(1, -1, 1, 1)))


def _channels_last(net, pool, x, draw):
    return net.permute(net.dense(net.permute(x, 0, 2, 3, 1), draw(st.sampled_from([3, 4, 8]))), 0, 3, 1, 2)


def _flip(net, pool, x, draw):
    return net.emit(op.flip(x, 1))


def _pool(net, pool, x, draw):
    return net.emit(nn.max_pool2d(x, (3, 3), (1, 1), (1, 1)))


def _matmul_over_channels(net, pool, x, draw):
    """Attention between channels of the flattened image: nothing here may be removed unless it is zero."""
    n, c, h, w = net.shape(x)
    rows = net.reshape(x, n, c, h * w)
    scores = net.emit(op.matmul(rows, net.permute(rows, 0, 2, 1)))
    return net.reshape(net.emit(op.matmul(net.mul(scores, relax.const(np.float32(0.01))), rows)), n, c, h, w)


STEPS = [
    *(_conv, _conv, _grouped, _depthwise, _add, _gate, _concat, _split, _halves_added, _slice, _shuffle, _pad),
    *(_normalize, _activate, _channels_last, _flip, _pool, _matmul_over_channels),
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_pruned_equals_zeroed_on_random_networks(data, net, assert_exact):
    network = net((1, 3, 4, 4), seed=data.draw(st.integers(0, 99)))
    x = network.conv(network.x, 8, name="stem")
    pool = [x]
    for step in data.draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=7)):
        x = step(network, pool, x, data.draw)
        pool.append(x)
        if network.shape(x)[1] > 64:
            x = network.conv(x, 8)
    if data.draw(st.booleans()):
        out = network.dense(network.reshape(x, 1, network.shape(x)[1] * 16), 3)
    else:
        out = network.head(x)
    mod = network.finish(out, *([network.conv(pool[0], 2)] if data.draw(st.booleans()) else []))
    if all(group.frozen is not None for group in groups(mod)):
        return
    assert_exact(mod, data.draw(st.sampled_from([0.3, 0.7])), tolerance=1e-4, must_change=False)
