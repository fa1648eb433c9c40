"""Random networks from the operator set, as a hypothesis strategy in steps."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

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


def _tokens(net, x):
    n, c, h, w = net.shape(x)
    return net.permute(net.reshape(x, n, c, h * w), 0, 2, 1)


def _image(net, tokens, like):
    n, _, h, w = net.shape(like)
    return net.reshape(net.permute(tokens, 0, 2, 1), n, net.shape(tokens)[2], h, w)


def _attention(net, pool, x, draw):
    """Heads from one projection of three, or from three projections."""
    heads, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    tokens = _tokens(net, x)
    n, t, c = net.shape(tokens)
    if draw(st.booleans()):
        fused = net.reshape(net.dense(tokens, 3 * heads * width), n, t, 3, heads, width)
        parts = [net.emit(op.squeeze(part, [2])) for part in net.split(fused, 3, axis=2)]
    else:
        parts = [net.reshape(net.dense(tokens, heads * width), n, t, heads, width) for _ in range(3)]
    if draw(st.booleans()):
        scores = net.emit(nn.softmax(net.emit(op.einsum(parts[:2], "bqhd,bkhd->bhqk")), -1))
        y = net.emit(op.einsum([scores, parts[2]], "bhqk,bkhd->bqhd"))
    else:
        q, k, v = net.permute(parts[0], 0, 2, 1, 3), net.permute(parts[1], 0, 2, 3, 1), net.permute(parts[2], 0, 2, 1, 3)
        scores = net.emit(nn.softmax(net.emit(op.matmul(q, k)), -1))
        y = net.permute(net.emit(op.matmul(scores, v)), 0, 2, 1, 3)
    return _image(net, net.dense(net.reshape(y, n, t, heads * width), c), x)


def _mixed_tokens(net, pool, x, draw):
    """A perceptron over the places, as in an MLP-Mixer."""
    n, c, h, w = net.shape(x)
    return net.reshape(net.dense(net.relu(net.dense(net.reshape(x, n, c, h * w), 5)), h * w), n, c, h, w)


def _layer_norm(net, pool, x, draw):
    kind = draw(st.sampled_from(["last", "rms", "first", "image", "instance"]))
    _, c, h, w = net.shape(x)
    if kind in ("last", "rms"):
        y = net.permute(x, 0, 2, 3, 1)
        if kind == "last":
            return net.permute(net.layer_norm(y), 0, 3, 1, 2)
        return net.permute(net.emit(nn.rms_norm(y, net.param(net.name("gamma"), (c,), 0.5), -1)), 0, 3, 1, 2)
    shape = (c, h, w) if kind == "image" else (c,)
    gamma, beta = net.param(net.name("gamma"), shape, 0.5), net.param(net.name("beta"), shape)
    if kind == "instance":
        return net.emit(nn.instance_norm(x, gamma, beta, 1, [2, 3]))
    return net.emit(nn.layer_norm(x, gamma, beta, [1, 2, 3] if kind == "image" else 1))


def _statistic(net, pool, x, draw):
    """A gate for every place from a statistic over the channels."""
    reduce = draw(st.sampled_from([op.mean, op.max, op.min, op.sum]))
    gate = net.emit(op.sigmoid(net.emit(reduce(x, [1], keepdims=True))))
    return net.mul(x, gate) if draw(st.booleans()) else net.add(x, gate)


def _linear_unit(net, pool, x, draw):
    y = net.conv(x, 2 * draw(st.integers(1, 5)), kernel=1)
    left, right = net.split(y, 2)
    return net.mul(left, net.emit(op.sigmoid(right)))


def _rescale(net, pool, x, draw):
    channels, out = net.shape(x)[1], draw(st.sampled_from([2, 4, 6]))
    if draw(st.booleans()):
        x = net.emit(nn.avg_pool2d(x, (2, 2), (2, 2)))
        return net.emit(op.image.resize2d(x, (4, 4), method=draw(st.sampled_from(["nearest_neighbor", "linear"]))))
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    x = net.emit(nn.max_pool2d(x, (2, 2), (2, 2)))
    weight = net.param(net.name("up"), (channels, out, 2, 2))
    return net.emit(nn.conv2d_transpose(x, weight, strides=2, groups=groups))


def _select(net, pool, x, draw):
    other = net.emit(op.multiply(x, relax.const(np.float32(draw(st.sampled_from([0.0, 0.3]))))))
    condition = op.greater(x, relax.const(np.float32(draw(st.sampled_from([-0.1, 0.0, 0.1])))))
    return net.emit(op.where(net.emit(condition), x, other))


def _gather(net, pool, x, draw):
    channels = net.shape(x)[1]
    index = draw(st.lists(st.integers(0, channels - 1), min_size=1, max_size=channels))
    return net.emit(op.take(x, relax.const(np.array(index, "int64")), 1))


def _prelu(net, pool, x, draw):
    return net.emit(nn.prelu(x, net.param(net.name("slope"), (net.shape(x)[1],)), 1))


def _stacked(net, pool, x, draw):
    """Branches stacked on a new axis and summed, or weighed by a softmax over the branches."""
    branches = net.emit(op.stack([net.conv(x, 4), net.conv(x, 4, kernel=1)], 1))
    if draw(st.booleans()):
        weights = net.reshape(net.conv(net.mean(x), 8, kernel=1), 1, 2, 4, 1, 1)
        branches = net.mul(branches, net.emit(nn.softmax(weights, 1)))
    return net.emit(op.sum(branches, [1]))


def _repeated(net, pool, x, draw):
    repeat = op.repeat if draw(st.booleans()) else (lambda y, count, axis: op.tile(y, [1, count, 1, 1]))
    return net.emit(repeat(x, 2, 1))


def _windows(net, pool, x, draw):
    """The four quarters of the image become a batch, are normalized and transformed, and go back."""
    n, c, h, w = net.shape(x)
    y = net.permute(net.reshape(x, n, c, 2, h // 2, 2, w // 2), 0, 2, 4, 3, 5, 1)
    y = net.relu(net.dense(net.reshape(y, 4 * n, h * w // 4, c), c))
    y = net.permute(net.reshape(y, n, 2, 2, h // 2, w // 2, c), 0, 5, 1, 3, 2, 4)
    return net.reshape(y, n, c, h, w)


def _pixel_shuffle(net, pool, x, draw):
    x = net.emit(nn.avg_pool2d(net.conv(x, 4 * draw(st.integers(1, 3))), (2, 2), (2, 2)))
    n, c, h, w = net.shape(x)
    y = net.permute(net.reshape(x, n, c // 4, 2, 2, h, w), 0, 1, 4, 2, 5, 3)
    return net.reshape(y, n, c // 4, 2 * h, 2 * w)


def _cumulative(net, pool, x, draw):
    """Running sums along an axis: the channels stay where it is theirs."""
    return net.emit(op.multiply(net.emit(op.cumsum(x, draw(st.sampled_from([1, 2, 3])))), relax.const(np.float32(0.3))))


def _rotary(net, pool, x, draw):
    """Pairs of channels turned by an angle that depends on the place."""
    if net.shape(x)[1] % 2:
        return x
    _, _, h, w = net.shape(x)
    angle = relax.const(np.linspace(0, 3, h * w, dtype="float32").reshape(1, 1, h, w))
    cos, sin = net.emit(op.cos(angle)), net.emit(op.sin(angle))
    left, right = net.split(x, 2)
    turned = net.concat(net.emit(op.negative(right)), left)
    return net.add(net.mul(x, cos), net.mul(turned, sin))


def _sampled(net, pool, x, draw):
    """The image warped by a fixed grid, or around a few boxes."""
    n, _, h, w = net.shape(x)
    if draw(st.booleans()):
        grid = np.random.default_rng(0).uniform(-1, 1, (n, h, w, 2)).astype("float32")
        return net.emit(op.image.grid_sample(x, relax.const(grid.transpose(0, 3, 1, 2))))
    boxes = relax.const(np.array([[0, 0.5, 0.5, 3, 3]], "float32"))
    return net.emit(op.vision.roi_align(x, boxes, (h, w), spatial_scale=1.0, sample_ratio=2))


def _in_one_dimension(net, pool, x, draw):
    """conv1d over the places in a row, grouped or not, transposed at times."""
    n, c, h, w = net.shape(x)
    rows = net.reshape(x, n, c, h * w)
    groups = draw(st.sampled_from([g for g in (1, 2, c) if c % g == 0]))
    out = groups * draw(st.integers(1, 3))
    if draw(st.booleans()):
        rows = net.emit(nn.conv1d(rows, net.param(net.name("row"), (out, c // groups, 3)), padding=1, groups=groups))
    else:
        rows = net.emit(nn.conv1d_transpose(rows, net.param(net.name("row"), (c, out // groups, 1)), groups=groups))
    return net.reshape(rows, n, out, h, w)


def _channels_last_convolution(net, pool, x, draw):
    y = net.permute(x, 0, 2, 3, 1)
    weight = net.param(net.name("last"), (3, 3, net.shape(x)[1], 5))
    y = net.emit(nn.conv2d(y, weight, padding=1, data_layout="NHWC", kernel_layout="HWIO"))
    return net.permute(net.emit(nn.max_pool2d(y, (3, 3), (1, 1), (1, 1), layout="NHWC")), 0, 3, 1, 2)


def _over_neighbours(net, pool, x, draw):
    """Local response normalization: a mean over neighbouring channels."""
    squares = net.emit(op.expand_dims(net.mul(x, x), [1]))
    near = net.emit(op.squeeze(net.emit(nn.avg_pool3d(squares, (3, 1, 1), (1, 1, 1), (1, 0, 0, 1, 0, 0))), [1]))
    return net.emit(op.divide(x, net.emit(op.sqrt(net.add(near, relax.const(np.float32(1)))))))


STEPS = [
    *(_conv, _conv, _grouped, _depthwise, _add, _gate, _concat, _split, _halves_added, _slice, _shuffle, _pad),
    *(_normalize, _activate, _channels_last, _flip, _pool, _matmul_over_channels, _attention, _mixed_tokens),
    *(_layer_norm, _statistic, _linear_unit, _rescale, _select, _gather, _prelu, _stacked, _repeated, _windows),
    *(_pixel_shuffle, _cumulative, _rotary, _sampled, _in_one_dimension, _channels_last_convolution, _over_neighbours),
]

# Those that ask nothing of the height and width of the image.
ANY_SIZE = [
    *(_conv, _conv, _grouped, _depthwise, _add, _gate, _concat, _split, _halves_added, _slice, _shuffle, _normalize),
    *(_activate, _channels_last, _pool, _layer_norm, _statistic, _linear_unit, _select, _gather, _prelu, _stacked),
    *(_repeated, _rotary, _channels_last_convolution, _attention, _in_one_dimension),
]


def random_network(draw, network, steps=STEPS, most=7):
    """Draw a network of up to `most` steps behind a stem; `network` is a builder with its input.

    Returns:
        The variable before the head, and those made on the way.
    """
    x = network.conv(network.x, 8, name="stem")
    pool = [x]
    for step in draw(st.lists(st.sampled_from(steps), min_size=1, max_size=most)):
        x = step(network, pool, x, draw)
        pool.append(x)
        if network.shape(x)[1] > 64:
            x = network.conv(x, 8)
    return x, pool
