"""One small network for each operator rule: which groups it has, and that pruning them equals zeroing them."""

# mypy: ignore-errors

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm.relax.frontend.onnx import onnx_frontend

from tvmcompress.passes import groups
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.channels import RULES, rules_elementwise, rules_reshape, rules_shape

op, nn = relax.op, relax.op.nn
CASES = {}


def case(**expected):
    """Register a network together with the sizes of its prunable groups; a double underscore stands for `#`."""

    def register(build):
        CASES[build.__name__] = build, {name.replace("__", "#"): size for name, size in expected.items()}
        return build

    return register


# Convolutions


@case(a=8)
def plain(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.head(net.relu(net.conv(net.x, 8, name="a"))))


@case(a=6, b=8)
def depthwise(Net):
    net = Net((1, 3, 6, 6))
    x = net.depthwise(net.relu(net.conv(net.x, 6, name="a")), name="d")
    return net.finish(net.head(net.conv(x, 8, kernel=1, name="b")))


@case(a=6)
def depthwise_with_multiplier(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.head(net.depthwise(net.conv(net.x, 6, name="a"), multiplier=3, name="d")))


@case(b=6)
def one_channel_is_not_depthwise(Net):
    # One input channel and one group: an ordinary convolution whose output channels are free.
    net = Net((1, 1, 6, 6))
    x = net.conv(net.conv(net.x, 1, name="a"), 6, name="b")
    return net.finish(net.head(x))


@case(a=4, g=6)
def grouped_same_positions(Net):
    # Two groups of four inputs and six outputs: the same positions of both groups go.
    net = Net((1, 3, 6, 6))
    return net.finish(net.head(net.conv(net.relu(net.conv(net.x, 8, name="a")), 12, groups=2, name="g")))


@case(a=8, b=6)
def grouped_whole_groups(Net):
    # Eight groups of two inputs and two outputs, as in ResNeXt: whole groups go.
    net = Net((1, 3, 6, 6))
    x = net.relu(net.conv(net.relu(net.conv(net.x, 16, name="a")), 16, groups=8, name="g"))
    return net.finish(net.head(net.conv(x, 6, kernel=1, name="b")))


def _transposed(net, x, out, groups, name):
    weight = net.param(f"{name}.weight", (net.shape(x)[1], out // groups, 2, 2))
    y = net.emit(nn.conv2d_transpose(x, weight, strides=2, groups=groups), name)
    return net.add(y, net.param(f"{name}.bias", (1, out, 1, 1)))


@case(a=6, up=8)
def transposed(Net):
    net = Net((1, 3, 4, 4))
    return net.finish(net.head(net.relu(_transposed(net, net.conv(net.x, 6, name="a"), 8, 1, "up"))))


@case(a=4, up=3)
def transposed_grouped_same_positions(Net):
    net = Net((1, 3, 4, 4))
    return net.finish(net.head(net.relu(_transposed(net, net.conv(net.x, 8, name="a"), 6, 2, "up"))))


@case(a=6)
def transposed_depthwise(Net):
    net = Net((1, 3, 4, 4))
    return net.finish(net.head(net.relu(_transposed(net, net.conv(net.x, 6, name="a"), 12, 6, "up"))))


@case(a=8, b=6)
def one_dimensional(Net):
    net = Net((1, 3, 16))
    x = net.emit(nn.conv1d(net.x, net.param("a.weight", (8, 3, 3)), padding=1), "a")
    x = net.emit(nn.max_pool1d(net.relu(x), 2, 2))
    x = net.emit(nn.conv1d(x, net.param("d.weight", (8, 1, 3)), groups=8), "d")
    x = net.emit(nn.conv1d_transpose(x, net.param("b.weight", (8, 6, 2))), "b")
    return net.finish(net.dense(net.mean(x, axes=[2], keepdims=False), 4))


@case(a=8, b=6)
def channels_last(Net):
    net = Net((1, 6, 6, 3))
    layouts = {"data_layout": "NHWC", "padding": 1}
    x = net.emit(nn.conv2d(net.x, net.param("a.weight", (3, 3, 3, 8)), kernel_layout="HWIO", **layouts), "a")
    x = net.add(x, net.param("a.bias", (8,)))
    x = net.emit(nn.max_pool2d(x, (2, 2), (2, 2), layout="NHWC"))
    x = net.emit(nn.conv2d(x, net.param("d.weight", (3, 3, 1, 8)), kernel_layout="HWIO", groups=8, **layouts), "d")
    x = net.emit(
        nn.conv2d(net.batch_norm(x, axis=3), net.param("b.weight", (6, 3, 3, 8)), kernel_layout="OHWI", **layouts), "b"
    )
    x = net.emit(op.image.resize2d(x, (5, 5), layout="NHWC"))
    return net.finish(net.dense(net.mean(x, axes=[1, 2], keepdims=False), 4))


# Matrix products


@case(fc1=8, fc2=6)
def dense(Net):
    net = Net((1, 12))
    return net.finish(net.dense(net.relu(net.dense(net.relu(net.dense(net.x, 8, name="fc1")), 6, name="fc2")), 3))


@case(a=8)
def weight_behind_a_permutation(Net):
    net = Net((1, 12))
    weight = net.permute(net.param("a.weight", (8, 12)), 1, 0)
    return net.finish(net.dense(net.relu(net.emit(op.matmul(net.x, weight), "a")), 3))


def _attention(net, x, heads, width, tokens):
    q, k, v = (net.dense(x, heads * width, name=name) for name in ("q", "k", "v"))
    q, k, v = (net.permute(net.reshape(y, 1, tokens, heads, width), 0, 2, 1, 3) for y in (q, k, v))
    scores = net.emit(op.matmul(q, net.permute(k, 0, 1, 3, 2)))
    scores = net.emit(nn.softmax(net.mul(scores, relax.const(width**-0.5, "float32")), axis=-1))
    y = net.permute(net.emit(op.matmul(scores, v)), 0, 2, 1, 3)
    return net.dense(net.reshape(y, 1, tokens, heads * width), 5, name="out")


@case(q=8, v=8)
def attention_by_products(Net):
    # Positions inside every head: queries with keys, values with the projection.
    net = Net((1, 7, 12))
    return net.finish(_attention(net, net.x, 2, 8, 7))


@case(q=6, v=6)
def attention_operator(Net):
    net = Net((1, 7, 12))
    q, k, v = (net.reshape(net.dense(net.x, 12, name=name), 1, 7, 2, 6) for name in ("q", "k", "v"))
    y = net.reshape(net.emit(nn.attention(q, k, v)), 1, 7, 12)
    return net.finish(net.dense(y, 5, name="out"))


@case(q=6, v=6)
def attention_operator_with_a_bias(Net):
    net = Net((1, 7, 12))
    q, k, v = (net.reshape(net.dense(net.x, 12, name=name), 1, 7, 2, 6) for name in ("q", "k", "v"))
    y = net.reshape(net.emit(nn.attention(q, k, v, net.param("bias", (1, 2, 7, 7)))), 1, 7, 12)
    return net.finish(net.dense(y, 5, name="out"))


@case(a=6)
def einsum(Net):
    net = Net((1, 7, 12))
    x = net.dense(net.x, 6, name="a")
    return net.finish(net.emit(op.einsum([x, net.param("w", (6, 5))], "btc,cd->btd")))


@case(a=6)
def product_of_activations(Net):
    # What is summed over is zero in both operands.
    net = Net((1, 7, 12))
    x = net.relu(net.dense(net.x, 6, name="a"))
    return net.finish(net.emit(op.matmul(x, net.permute(x, 0, 2, 1))))


@case()
def product_of_activations_that_are_not_zero(Net):
    # A sigmoid of a removed channel would be one half: the sum would miss it.
    net = Net((1, 7, 12))
    x = net.emit(op.sigmoid(net.dense(net.x, 6, name="a")))
    return net.finish(net.emit(op.matmul(x, net.permute(x, 0, 2, 1))))


# Shapes


@case(a=8)
def flatten_and_dense(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.dense(net.reshape(net.conv(net.x, 8, name="a"), 1, 8 * 36), 4))


@case(a=8)
def flatten_operator(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.dense(net.emit(nn.batch_flatten(net.conv(net.x, 8, name="a"))), 4))


@case(fc1=6)
def dense_to_spatial(Net):
    # The other way round: a dense layer whose outputs become channels.
    net = Net((1, 5))
    x = net.reshape(net.dense(net.x, 6 * 4), 1, 6, 2, 2)
    return net.finish(net.conv(x, 4))


@case(a=6)
def channel_axis_split_and_merged(Net):
    # The larger part carries, and keeps doing so where the parts are merged again.
    net = Net((1, 3, 4, 4))
    x = net.permute(net.reshape(net.conv(net.x, 12, name="a"), 1, 2, 6, 4, 4), 0, 1, 3, 4, 2)
    return net.finish(net.dense(net.mean(net.reshape(x, 1, 2, 16, 6), axes=[1, 2], keepdims=False), 4))


@case(a=4)
def decomposed_group_norm(Net):
    # Groups carry, since the channels of a group are averaged together with the image.
    net = Net((1, 3, 4, 4))
    x = net.reshape(net.conv(net.x, 32, name="a"), 1, 4, 8 * 16)
    x = net.emit(op.subtract(x, net.mean(x, axes=[2])))
    return net.finish(net.head(net.reshape(x, 1, 32, 4, 4)))


@case(a=12)
def shuffle(Net):
    # All channels stay free: a shuffle is a gather.
    net = Net((1, 3, 6, 6))
    x = net.shuffle(net.relu(net.conv(net.x, 12, name="a")), 3)
    return net.finish(net.dense(net.reshape(x, 1, 12 * 36), 4))


@case(a=4)
def pixel_shuffle(Net):
    # Sixteen channels become four of twice the height and width; TVM cannot compile its own operator for it.
    net = Net((1, 3, 4, 4))
    x = net.permute(net.reshape(net.conv(net.x, 16, name="a"), 1, 4, 2, 2, 4, 4), 0, 1, 4, 2, 5, 3)
    return net.finish(net.head(net.reshape(x, 1, 4, 8, 8)))


@case(a=4, b=6, c=8)
def concat(Net):
    net = Net((1, 3, 6, 6))
    a, b = net.conv(net.x, 4, name="a"), net.conv(net.x, 6, name="b")
    return net.finish(net.head(net.conv(net.concat(a, b, a), 8, name="c")))


@case(a=3, a__2=5)
def split(Net):
    net = Net((1, 3, 6, 6))
    x, y = net.split(net.conv(net.x, 8, name="a"), [3])
    return net.finish(net.head(x), net.mean(net.conv(net.relu(y), 2)))


@case(a=4)
def split_into_sections_that_meet_again(Net):
    net = Net((1, 3, 6, 6))
    x, y = net.split(net.conv(net.x, 8, name="a"), 2)
    return net.finish(net.head(net.add(x, net.relu(y))))


@case(a=4, a__2=3)
def strided_slices(Net):
    # Steps, negative bounds and a backward slice.
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 7, name="a")
    even = net.emit(op.strided_slice(x, [1], [0], [7], [2]))
    odd = net.emit(op.strided_slice(x, [1, 2], [-2, 0], [-8, 4], [-2, 1]))
    return net.finish(net.head(even), net.conv(odd, 4))


@case(a=5)
def take(Net):
    # Position 5 is taken twice: it is of another kind than the five others, and the last of its kind.
    net = Net((1, 3, 6, 6))
    x = net.emit(op.take(net.conv(net.x, 6, name="a"), relax.const(np.array([5, 0, 1, 4, -3, 2, 5])), axis=1))
    return net.finish(net.conv(x, 4, name="b"))


@case(a=5)
def take_of_single_positions(Net):
    # The position taken out stays, the others may go.
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 6, name="a")
    one = net.emit(op.take(x, relax.const(2, "int64"), axis=1))
    return net.finish(one, net.head(x))


@case(table=6)
def embedding(Net):
    net = Net((1, 4))
    table = net.param("table", (10, 6))
    index = net.emit(op.astype(net.emit(op.clip(net.x, 0, 9)), "int64"))
    return net.finish(net.dense(net.emit(op.take(table, index, axis=0), "table"), 3))


@case(a=6)
def flip_repeat_tile(Net):
    net = Net((1, 3, 4, 4))
    x = net.emit(op.flip(net.conv(net.x, 6, name="a"), 1))
    x = net.emit(op.tile(net.emit(op.repeat(x, 2, 1)), [1, 2, 1, 1]))
    return net.finish(net.conv(x, 3, name="b"))


@case(a=4, b=4)
def padded_shortcut(Net):
    # ResNet's parameter-free shortcut: the channels that padding adds go with those of the branch they are added to.
    net = Net((1, 3, 6, 6))
    a = net.conv(net.x, 4, name="a")
    padded = net.emit(nn.pad(net.emit(op.strided_slice(a, [2, 3], [0, 0], [6, 6], [2, 2])), [0, 0, 2, 2, 0, 0, 0, 0]))
    return net.finish(net.head(net.add(net.conv(a, 8, stride=2, name="b"), padded)))


@case(a=6)
def positions_are_counted_along_another_axis(Net):
    net = Net((1, 3, 4, 4))
    x = net.emit(op.argmax(net.conv(net.x, 6, name="a"), 2))
    return net.finish(net.head(net.emit(op.expand_dims(net.emit(op.astype(x, "float32")), 2))))


@case()
def positions_are_counted_along_channels(Net):
    net = Net((1, 3, 4, 4))
    x = net.emit(op.argmax(net.conv(net.x, 6, name="a"), 1, True))
    return net.finish(net.head(net.emit(op.astype(x, "float32"))))


@case(a=6)
def sums_run_along_another_axis(Net):
    net = Net((1, 3, 4, 4))
    return net.finish(net.head(net.emit(op.cumsum(net.conv(net.x, 6, name="a"), 2))))


@case(a=4)
def channels_split_in_front_of_another_axis(Net):
    # No shuffle: the rows of the image come between the parts of the channels.
    net = Net((1, 3, 4, 4))
    x = net.reshape(net.conv(net.x, 8, name="a"), 1, 2, 4, 4, 4)
    return net.finish(net.head(net.reshape(net.permute(x, 0, 1, 4, 2, 3), 1, 8, 4, 4)))


@case(a=6)
def squeeze_expand_broadcast(Net):
    net = Net((1, 3, 4, 4))
    x = net.mean(net.conv(net.x, 6, name="a"))
    x = net.emit(op.squeeze(net.emit(op.expand_dims(x, [1])), [1]))
    x = net.mul(
        net.emit(op.broadcast_to(x, [1, 6, 4, 4])),
        net.emit(op.broadcast_to(net.param("s", (1, 1, 4, 4)), [1, 6, 4, 4])),
    )
    return net.finish(net.conv(x, 4, name="b"))


@case(a=6)
def stack(Net):
    net = Net((1, 3, 4, 4))
    x = net.conv(net.x, 6, name="a")
    x = net.emit(op.stack([x, net.relu(x)], axis=1))
    return net.finish(net.dense(net.permute(net.mean(x, axes=[1, 3, 4], keepdims=False), 0, 1), 3))


# Element-wise operators and normalizations


@case(a=6, squeeze=3)
def squeeze_and_excite(Net):
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 6, name="a")
    s = net.conv(net.relu(net.conv(net.mean(x), 3, kernel=1, name="squeeze")), 6, kernel=1, name="excite")
    return net.finish(net.head(net.mul(x, net.emit(op.sigmoid(s)))))


@case(a=6)
def inline_constants(Net):
    net = Net((1, 3, 6, 6))
    x = net.add(net.conv(net.x, 6, name="a"), relax.const(np.arange(6, dtype="float32").reshape(1, 6, 1, 1)))
    return net.finish(net.head(net.mul(x, relax.const(np.float32(2)))))


@case(a=6)
def activations(Net):
    net = Net((1, 3, 6, 6))
    x = net.conv(net.x, 6, name="a")
    for unary in (nn.gelu, nn.silu, nn.leakyrelu, op.tanh, op.sigmoid, op.exp, op.abs, op.sqrt, op.negative):
        x = net.emit(unary(x))
    x = net.emit(nn.prelu(x, net.param("slope", (6,)), axis=1))
    x = net.emit(op.clip(x, 0.5, 6))
    x = net.emit(op.where(net.emit(op.greater(x, relax.const(np.float32(1)))), x, net.emit(op.multiply(x, x))))
    return net.finish(net.head(net.emit(op.divide(x, relax.const(np.float32(6))))))


@case(a=6)
def sum_over_channels_that_are_zero(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.emit(op.sum(net.relu(net.conv(net.x, 6, name="a")), [1])))


@case()
def sum_over_channels_that_are_not_zero(Net):
    net = Net((1, 3, 6, 6))
    return net.finish(net.emit(op.sum(net.emit(op.exp(net.conv(net.x, 6, name="a"))), [1])))


@case(a=6, b=4)
def pooling_and_resizing(Net):
    net = Net((1, 3, 8, 8))
    x = net.emit(nn.max_pool2d(net.conv(net.x, 6, name="a"), (2, 2), (2, 2)))
    x = net.emit(nn.avg_pool2d(net.emit(op.image.resize2d(x, (8, 8), method="nearest_neighbor")), (2, 2), (2, 2)))
    x = net.emit(nn.adaptive_avg_pool2d(net.conv(x, 4, name="b"), (1, 1)))
    return net.finish(net.dense(net.reshape(x, 1, 4), 3))


@case(b=6)
def operators_without_a_rule(Net):
    net = Net((1, 3, 6, 6))
    x = net.emit(op.gather_elements(net.conv(net.x, 4, name="a"), relax.const(np.zeros((1, 4, 6, 6), "int64")), 1))
    return net.finish(net.head(net.conv(x, 6, name="b")))


# Places of an image


@case(a=8)
def boxes_are_read(Net):
    net = Net((1, 3, 6, 6))
    boxes = relax.const(np.array([[0, 0.5, 1, 4, 5], [0, 1, 0, 5.5, 3]], "float32"))
    return net.finish(net.head(net.emit(op.vision.roi_align(net.conv(net.x, 8, name="a"), boxes, (3, 3), 1.0, 2))))


@case(a=6)
def a_normalization_over_neighbours_is_told(Net):
    net = Net((1, 3, 6, 6))
    x = net.conv(net.conv(net.x, 6, name="a"), 4, name="b")
    near = net.emit(nn.avg_pool3d(net.emit(op.expand_dims(x, [1])), (3, 1, 1), (1, 1, 1), (1, 0, 0)), "near")
    return net.finish(net.head(net.mul(x, net.emit(op.squeeze(near, [1])))))


@pytest.mark.parametrize("name", CASES)
def test_groups(name, net):
    build, expected = CASES[name]
    assert {group.name: group.size for group in groups(build(net)) if group.frozen is None} == expected


@pytest.mark.parametrize("ratio", [0.3, 0.7])
@pytest.mark.parametrize("name", [name for name, (_, expected) in CASES.items() if expected])
def test_pruned_equals_zeroed(name, ratio, net, assert_exact):
    assert_exact(CASES[name][0](net), ratio)


@pytest.mark.parametrize(
    "name", ["grouped_whole_groups", "strided_slices", "shuffle", "attention_operator", "padded_shortcut"]
)
def test_the_pruned_module_compiles(name, net, assert_exact):
    assert_exact(CASES[name][0](net), 0.5, on_vm=True)


def test_pixel_shuffle_operator(net):
    network = net((1, 3, 4, 4))
    x = network.emit(nn.pixel_shuffle(network.conv(network.x, 16, name="a"), 2))
    (group, *_) = groups(network.finish(network.head(x)))
    assert group.members["a.weight", 0].tolist() == np.arange(16).reshape(4, 4).tolist()


def test_channels_that_neighbours_share_are_reported(net):
    frozen = {group.name: group.frozen for group in groups(a_normalization_over_neighbours_is_told(net)) if group.frozen}
    assert frozen["b"] == "near mixes neighbouring positions of it"


def test_what_hinders_a_removal_is_said(net):
    network = net((1, 3, 6, 6))
    x = network.conv(network.x, 4, name="a")
    index = relax.const(np.zeros((1, 4, 6, 6), "int64"))
    looked = network.emit(op.gather_elements(x, index, 1), "looked")
    frozen = {group.name: group.frozen for group in groups(network.finish(network.head(looked))) if group.frozen}
    assert frozen["a"] == "looked looks single elements up in it by index"


def test_every_operator_of_the_onnx_front_end_has_a_rule():
    """What it can emit is read from its source; operators on shapes alone are among those that hinder a removal."""
    source = inspect.getsource(onnx_frontend)
    names = {f"relax.{name}" for name in re.findall(r"relax\.op\.((?:[a-z_0-9]+\.)*[a-z_0-9]+)", source)}
    known = {name for name in names if name in tvm.ir.Op.list_op_names()}
    assert len(known) > 100
    assert sorted(known - set(RULES)) == []


@pytest.mark.parametrize("name", rules_elementwise._BINARY)
def test_zeros_stay_where_numpy_says_so(name):
    function = {"log_add_exp": np.logaddexp, "atan2": np.arctan2}.get(name) or getattr(np, name)
    kind = "int64" if "bitwise" in name else "float64"
    for pair in ((0, 0), (0, 3), (3, 0)):
        a, b = (np.array([value], kind) for value in pair)
        with np.errstate(all="ignore"):
            assert (rules_elementwise._BINARY[name](a, b) == 0).all() == (function(a, b) == 0).all()


@given(old=st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=5), data=st.data())
def test_blocks_of_a_reshape_leave_no_axis_out(old, data):
    new = data.draw(st.permutations(old))
    blocks = rules_reshape._blocks(old, new)
    assert [axis for block, _ in blocks for axis in range(*block.indices(len(old)))] == list(range(len(old)))
    assert [axis for _, block in blocks for axis in range(*block.indices(len(new)))] == list(range(len(new)))
    assert all(np.prod(old[left]) == np.prod(new[right]) for left, right in blocks)


@given(
    size=st.integers(1, 6),
    begin=st.integers(-9, 9),
    end=st.integers(-9, 9),
    stride=st.integers(-3, 3).filter(bool),
)
def test_slices_take_what_numpy_takes(size: int, begin: int, end: int, stride: int) -> None:
    x = relax.Var("x", relax.TensorType((size,), "float32"))
    call = op.strided_slice(x, [0], [begin], [end], [stride])
    assert rules_shape._slices(call, (size,))[0].tolist() == list(range(size))[begin:end:stride]
