"""Blocks: what is solved for together is closer than layer by layer, and nothing outside a block notices."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import PruneChannels, Reconstruct, Sparsify, get_params, get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import Interpreter, run
from tvmcompress.passes.repair import blocks
from tvmcompress.passes.repair.blocks import find_blocks
from tvmcompress.passes.repair.repaired_layers import find_layers

op = relax.op


def residual(Net):
    net = Net((1, 4, 6, 6))
    x = net.relu(net.conv(net.x, 6, name="stem"))
    x = net.relu(net.add(x, net.conv(net.relu(net.conv(x, 8, name="a")), 6, name="b")))
    skip = net.conv(x, 8, kernel=1, stride=2, name="skip")
    x = net.relu(net.add(skip, net.conv(net.relu(net.conv(x, 8, stride=2, name="c")), 8, name="d")))
    return net.finish(net.conv(x, 3, name="last"))


def depthwise(Net):
    net = Net((1, 4, 6, 6))
    x = net.relu(net.conv(net.x, 8, name="stem"))
    x = net.relu(net.conv(net.relu(net.depthwise(x, name="dw")), 8, kernel=1, name="pw"))
    return net.finish(net.conv(x, 3, name="last"))


def transformer(Net):
    net = Net((1, 6, 8))
    x = net.layer_norm(net.x)
    q, k, v = (net.permute(net.reshape(net.dense(x, 8, name=name), 1, 6, 2, 4), 0, 2, 1, 3) for name in "qkv")
    scores = net.emit(op.nn.softmax(net.emit(op.matmul(q, net.permute(k, 0, 1, 3, 2))), axis=-1))
    y = net.reshape(net.permute(net.emit(op.matmul(scores, v)), 0, 2, 1, 3), 1, 6, 8)
    x = net.add(net.x, net.dense(y, 8, name="proj"))
    wide = net.emit(op.nn.gelu(net.dense(net.layer_norm(x), 16, name="fc1")))
    x = net.add(x, net.dense(wide, 8, name="fc2"))
    return net.finish(net.dense(x, 3, name="head"))


def found_in(mod):
    found, refused = find_blocks(mod, find_layers(mod))
    return [[layer.weight.name.removesuffix(".weight") for layer in block.layers] for block in found], refused


def samples(mod, count, seed=1):
    shape = [int(dim) for dim in mod["main"].params[0].ty.shape]
    return np.random.default_rng(seed).standard_normal((count, *shape[1:])).astype("float32")


def error(mod, reference, x):
    expected = run(reference, [x])[0]
    return float(np.linalg.norm(run(mod, [x])[0] - expected) / np.linalg.norm(expected))


def test_blocks_end_at_residual_additions(net):
    # The stem is read by the skip, too, but behind its activation alone: all of it ends in the sum. One layer is no block.
    assert found_in(residual(net)) == ([["stem", "a", "b"], ["skip", "c", "d"]], {})
    assert found_in(transformer(net)) == ([["q", "k", "v", "proj"], ["fc1", "fc2"]], {})


def test_chains_are_cut_in_twos(net):
    assert found_in(depthwise(net)) == ([["stem", "dw"], ["pw", "last"]], {})


def test_a_layer_that_others_read_is_no_part_of_a_block(net):
    built = net((1, 4, 6, 6))
    a = built.conv(built.x, 8, name="a")
    b = built.conv(built.relu(a), 8, name="b")
    c = built.conv(built.relu(b), 8, name="c")
    # The last reads what the first gives: a change of `a` would not go through `b` alone.
    mod = built.finish(built.conv(built.mul(c, a), 3, name="d"))
    assert found_in(mod) == ([["c", "d"]], {})


def test_what_has_no_derivative_is_named(net):
    built = net((1, 4, 6, 6))
    pooled = built.emit(op.nn.max_pool2d(built.relu(built.conv(built.x, 8, name="a")), (2, 2), (2, 2)))
    mod = built.finish(built.conv(pooled, 3, name="b"))
    assert found_in(mod) == ([], {"b": "its block is solved layer by layer: relax.nn.max_pool2d has no derivative"})
    (remark,) = get_remarks(Reconstruct(mod, [samples(mod, 16)], {}, blocks=True)(mod))
    assert (remark.pass_name, remark.subject) == ("Reconstruct", "b")


@pytest.mark.parametrize("build", [residual, depthwise, transformer], ids=lambda build: build.__name__)
def test_blocks_are_closer_than_layers_on_fresh_samples(build, net):
    mod = build(net)
    # Of a residual network what is inside of blocks.
    pruned = PruneChannels(0.5, exclude=["stem", "skip"] if build is residual else [])(mod)
    x, fresh = samples(mod, 120), samples(mod, 80, seed=9)
    layers, together = (Reconstruct(mod, [x], blocks=value)(pruned) for value in (False, True))
    assert error(together, mod, fresh) < 0.97 * error(layers, mod, fresh)
    for name, value in get_params(pruned).items():
        assert get_params(together)[name].shape == value.shape
    # The same every time.
    again = get_params(Reconstruct(mod, [x], blocks=True)(pruned))
    for name, value in get_params(together).items():
        np.testing.assert_array_equal(again[name], value)


def test_an_unpruned_network_is_left_as_it_is(net):
    mod = residual(net)
    same = Reconstruct(mod, [samples(mod, 32)], {}, blocks=True)(mod)
    assert error(same, mod, samples(mod, 16, seed=9)) < 1e-3


def test_zeros_stay_zero(net):
    mod = residual(net)
    sparse = Sparsify(0.5)(mod)
    repaired = get_params(Reconstruct(mod, [samples(mod, 40)], {}, blocks=True)(sparse))
    for name, value in get_params(sparse).items():
        if value.ndim == 4:
            assert not repaired[name][value == 0].any()


@pytest.mark.parametrize("build", [residual, depthwise, transformer], ids=lambda build: build.__name__)
def test_the_gradient_is_that_of_the_error(build, net):
    """Along directions in which every coordinate counts, against differences of what is computed in float32."""
    mod = build(net)
    found, _ = find_blocks(mod, find_layers(mod))
    block = found[0]
    interpreter = Interpreter(mod)
    x = samples(mod, 12).astype(np.float64)
    params = {name: value.astype(np.float64) for name, value in get_params(mod).items()}
    execution = interpreter.start([x.astype(np.float32)])
    while not execution.upcoming()[0].same_as(block.program[0][0]):
        execution.step()
    values = {var: np.asarray(execution.values[var], np.float64) for var in block.reads}
    rng = np.random.default_rng(0)
    shape = blocks._Part(block, values, np.zeros(()), interpreter.evaluate, 12).run({})[block.output].shape
    part = blocks._Part(block, values, rng.standard_normal(shape), interpreter.evaluate, 12)
    start = {name: params[name] for layer in block.layers for name in blocks._names(layer)}
    space = blocks._Coordinates(block, part, start, rng)
    point = 0.1 * rng.standard_normal(space.size) / np.sqrt(space.size)
    gradient = space.gradient(part.derivatives(space.params(point))[1])
    step = 1e-4
    for _ in range(3):
        direction = gradient * rng.random(space.size)
        direction /= np.linalg.norm(direction)
        ahead, behind = (part.error(space.params(point + sign * step * direction)) / space.unit**2 for sign in (1, -1))
        assert gradient @ direction == pytest.approx((ahead - behind) / (2 * step), rel=3e-3)
    assert np.linalg.norm(space.gradient(part.derivatives(start)[1])) == pytest.approx(1)
    for name, value in space.params(np.zeros(space.size)).items():
        np.testing.assert_array_equal(value, start[name])
