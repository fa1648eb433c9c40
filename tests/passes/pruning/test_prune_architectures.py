"""Whole architectures: pruning any ratio of every group equals zeroing the same channels."""

# mypy: ignore-errors

from __future__ import annotations

import pytest

from tvmcompress.passes import PruneChannels, get_surgery, groups
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.analysis import count_macs, count_params

op, nn = relax.op, relax.op.nn


def resnet(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.batch_norm(net.conv(net.x, 8, bias=False, name="stem")))
    for index, width in enumerate((8, 16)):
        stride = 1 if width == 8 else 2
        y = net.relu(net.conv(x, width, stride=stride, name=f"b{index}.conv1"))
        y = net.conv(y, width, name=f"b{index}.conv2")
        shortcut = x if width == 8 else net.conv(x, width, kernel=1, stride=2, name=f"b{index}.down")
        x = net.relu(net.add(y, shortcut))
    return net.finish(net.head(x))


def resnext(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 16))
    y = net.relu(net.conv(net.relu(net.conv(x, 16, kernel=1)), 16, groups=8))
    return net.finish(net.head(net.relu(net.add(x, net.conv(y, 16, kernel=1)))))


def densenet(Net):
    net = Net((1, 3, 8, 8))
    x = net.conv(net.x, 8)
    for _ in range(3):
        x = net.concat(x, net.conv(net.relu(net.batch_norm(x)), 4, bias=False))
    x = net.emit(nn.avg_pool2d(net.conv(net.relu(net.batch_norm(x)), 10, kernel=1), (2, 2), (2, 2)))
    return net.finish(net.head(x))


def mobilenet_v3(Net):
    net = Net((1, 3, 8, 8))
    x = net.hard_swish(net.conv(net.x, 8))
    for _ in range(2):
        y = net.depthwise(net.relu(net.conv(x, 16, kernel=1)))
        s = net.conv(net.relu(net.conv(net.mean(y), 4, kernel=1)), 16, kernel=1)
        y = net.mul(y, net.emit(op.sigmoid(s)))
        x = net.add(x, net.conv(y, 8, kernel=1))
    return net.finish(net.dense(net.reshape(x, 1, 8 * 64), 5))


def shufflenet_v2(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 16))
    for _ in range(3):
        keep, y = net.split(x, 2)
        y = net.relu(net.conv(net.depthwise(net.relu(net.conv(y, 8, kernel=1))), 8, kernel=1))
        x = net.shuffle(net.concat(keep, y), 2)
    return net.finish(net.head(net.conv(x, 12, kernel=1)))


def squeezenet(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 8))
    for _ in range(2):
        s = net.relu(net.conv(x, 4, kernel=1))
        x = net.concat(net.relu(net.conv(s, 6, kernel=1)), net.relu(net.conv(s, 6)))
    return net.finish(net.mean(net.conv(x, 5, kernel=1), keepdims=False))


def ghostnet(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 8))
    y = net.conv(x, 6, kernel=1)
    x = net.concat(y, net.depthwise(y))
    return net.finish(net.head(net.conv(x, 8)))


def convnext(Net):
    net = Net((1, 3, 8, 8))
    x = net.conv(net.x, 12, kernel=2, stride=2, padding=0)
    y = net.permute(net.depthwise(x, kernel=7), 0, 2, 3, 1)
    y = net.layer_norm(y)
    y = net.dense(net.emit(nn.gelu(net.dense(y, 24, name="up"))), 12, name="down")
    y = net.permute(net.mul(y, net.param("layer_scale", (12,), 0.5)), 0, 3, 1, 2)
    return net.finish(net.head(net.add(x, y)))


def inception(Net):
    net = Net((1, 3, 8, 8))
    x = net.relu(net.conv(net.x, 8))
    pool = net.emit(nn.avg_pool2d(x, (3, 3), (1, 1), (1, 1)))
    branches = net.conv(x, 4, kernel=1), net.conv(net.conv(x, 4, kernel=1), 6), net.conv(pool, 5, kernel=1)
    return net.finish(net.head(net.conv(net.relu(net.concat(*branches)), 8)))


def unet(Net):
    net = Net((1, 3, 8, 8))
    a = net.relu(net.conv(net.x, 6))
    b = net.relu(net.conv(net.emit(nn.max_pool2d(a, (2, 2), (2, 2))), 10))
    up = net.emit(nn.conv2d_transpose(b, net.param("up.weight", (10, 6, 2, 2)), strides=2), "up")
    return net.finish(net.conv(net.relu(net.conv(net.concat(a, up), 8)), 2, kernel=1))


def feature_pyramid(Net):
    net = Net((1, 3, 8, 8))
    c1 = net.relu(net.conv(net.x, 8))
    c2 = net.relu(net.conv(c1, 12, stride=2))
    p2 = net.conv(c2, 6, kernel=1)
    up = net.emit(op.image.resize2d(p2, (8, 8), method="nearest_neighbor"))
    p1 = net.add(net.conv(c1, 6, kernel=1), up)
    weight, bias = net.param("shared.weight", (8, 6, 3, 3)), net.param("shared.bias", (1, 8, 1, 1))
    outputs = []
    for p in (p1, p2):
        # One head for both levels.
        y = net.relu(net.add(net.emit(nn.conv2d(p, weight, padding=1)), bias))
        outputs.append(net.reshape(net.permute(net.conv(y, 4), 0, 2, 3, 1), 1, -1, 4))
    return net.finish(net.concat(*outputs, axis=1))


def yolo(Net):
    net = Net((1, 3, 8, 8))
    x = net.silu(net.conv(net.x, 16))
    a, b = net.split(net.silu(net.conv(x, 16, kernel=1)), 2)
    c = net.add(b, net.silu(net.conv(net.silu(net.conv(b, 8)), 8)))
    x = net.silu(net.conv(net.concat(a, b, c), 12, kernel=1))
    pools = [x]
    for _ in range(2):
        pools.append(net.emit(nn.max_pool2d(pools[-1], (5, 5), (1, 1), (2, 2))))
    x = net.silu(net.conv(net.concat(*pools), 10, kernel=1))
    return net.finish(net.permute(net.reshape(net.conv(x, 14, kernel=1), 1, 2, 7, 8, 8), 0, 1, 3, 4, 2))


def vision_transformer(Net):
    net = Net((1, 3, 8, 8))
    x = net.permute(net.reshape(net.conv(net.x, 12, kernel=4, stride=4, padding=0), 1, 12, 4), 0, 2, 1)
    x = net.add(net.concat(net.param("token", (1, 1, 12)), x), net.param("position", (1, 5, 12)))
    qkv = net.permute(net.reshape(net.dense(net.layer_norm(x), 36, name="qkv"), 1, 5, 3, 2, 6), 2, 0, 3, 1, 4)
    q, k, v = (net.emit(op.squeeze(part, [0])) for part in net.split(qkv, 3, axis=0))
    scores = net.emit(nn.softmax(net.emit(op.matmul(q, net.permute(k, 0, 1, 3, 2))), axis=-1))
    y = net.reshape(net.permute(net.emit(op.matmul(scores, v)), 0, 2, 1, 3), 1, 5, 12)
    x = net.add(x, net.dense(y, 12, name="proj"))
    x = net.add(x, net.dense(net.emit(nn.gelu(net.dense(net.layer_norm(x), 24, name="up"))), 12, name="down"))
    return net.finish(net.dense(net.emit(op.take(net.layer_norm(x), relax.const(0, "int64"), axis=1)), 5))


def mlp_mixer(Net):
    net = Net((1, 3, 8, 8))
    x = net.permute(net.reshape(net.conv(net.x, 12, kernel=2, stride=2, padding=0), 1, 12, 16), 0, 2, 1)
    y = net.permute(x, 0, 2, 1)
    y = net.dense(net.emit(nn.gelu(net.dense(y, 10, name="token.up"))), 16, name="token.down")
    x = net.add(x, net.permute(y, 0, 2, 1))
    x = net.add(x, net.dense(net.emit(nn.gelu(net.dense(x, 24, name="channel.up"))), 12, name="channel.down"))
    return net.finish(net.dense(net.mean(x, axes=[1], keepdims=False), 5))


def siamese(Net):
    net = Net((1, 3, 8, 8), (1, 3, 8, 8))
    weights = [net.param("w1", (8, 3, 3, 3)), net.param("w2", (6, 8, 3, 3))]
    sides = []
    for x in net.inputs:
        for weight in weights:
            x = net.relu(net.emit(nn.conv2d(x, weight, padding=1)))
        sides.append(x)
    return net.finish(net.head(net.emit(op.abs(net.emit(op.subtract(*sides))))))


def autoencoder(Net):
    net = Net((1, 20))
    x = net.x
    for width in (16, 8, 4, 8, 16):
        x = net.relu(net.dense(x, width))
    return net.finish(net.dense(x, 20))


ARCHITECTURES = [
    *(resnet, resnext, densenet, mobilenet_v3, shufflenet_v2, squeezenet, ghostnet, convnext, inception, unet),
    *(feature_pyramid, yolo, vision_transformer, mlp_mixer, siamese, autoencoder),
]


@pytest.mark.parametrize("ratio", [0.3, 0.7])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda build: build.__name__)
def test_pruned_equals_zeroed(architecture, ratio, net, assert_exact):
    mod = architecture(net)
    pruned = assert_exact(mod, ratio)
    assert count_macs(pruned) < count_macs(mod)
    # Every group of more than one unit loses some, none is emptied.
    for group in get_surgery(pruned).groups:
        assert 0 < len(group.kept) < group.size


@pytest.mark.parametrize("architecture", [resnet, shufflenet_v2, vision_transformer], ids=lambda build: build.__name__)
def test_the_pruned_module_compiles(architecture, net, assert_exact):
    assert_exact(architecture(net), 0.5, on_vm=True)


def test_the_extreme_leaves_one_unit_of_each_group(net):
    pruned = PruneChannels(0.999)(shufflenet_v2(net))
    assert all(len(group.kept) == 1 for group in get_surgery(pruned).groups)


def test_three_hundred_layers(net):
    network = net((1, 3, 8, 8))
    x = network.conv(network.x, 16)
    for _ in range(100):
        y = network.relu(network.conv(network.depthwise(network.relu(network.conv(x, 32, kernel=1))), 16, kernel=1))
        x = network.add(x, y)
    mod = network.finish(network.head(x))
    found = [group for group in groups(mod) if group.frozen is None]
    assert [group.size for group in found] == [16] + [32] * 100
    assert count_params(PruneChannels(0.5)(mod)) < 0.35 * count_params(mod)
