"""PruneBlocks: what counts as a block, and which goes first."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import UserError, attach_params, get_params, get_remarks, get_surgery
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.pruning.prune_blocks import PruneBlocks, find_blocks, relative_error, remove_block


def _residual(Net, scales):
    """A stem and one residual block a scale; the branch of a block is multiplied by it."""
    net = Net((1, 3, 4, 4))
    x = net.relu(net.conv(net.x, 6, name="stem"))
    for index, _ in enumerate(scales):
        y = net.conv(net.relu(net.conv(x, 4, name=f"b{index}.conv1")), 6, name=f"b{index}.conv2")
        x = net.add(x, y)
    mod = net.finish(net.head(x))
    params = get_params(mod)
    for index, scale in enumerate(scales):
        params[f"b{index}.conv2.weight"] = params[f"b{index}.conv2.weight"] * np.float32(scale)
        params[f"b{index}.conv2.bias"] = params[f"b{index}.conv2.bias"] * np.float32(scale)
    return attach_params(mod, params)


@pytest.fixture(scope="module")
def samples():
    return [np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype("float32")]


def test_residual_branches_are_blocks(net):
    blocks = [block for block in find_blocks(_residual(net, [1, 1])) if block.kind == "residual"]
    assert len(blocks) == 2
    assert {"b0.conv1", "b0.conv2"} <= set(blocks[0].layers)
    assert not {"stem", "b1.conv1"} & set(blocks[0].layers)


def test_layers_that_keep_the_shape_are_blocks(net):
    network = net((1, 3, 4, 4))
    x = network.relu(network.conv(network.x, 6, name="a"))
    y = network.relu(network.conv(x, 6, name="b"))
    mod = network.finish(network.head(network.conv(y, 6, stride=2, name="c")))
    (block,) = find_blocks(mod)
    assert (block.kind, block.source, block.name) == ("layer", x.name, y.name)
    assert "b" in block.layers


def test_the_block_that_matters_least_goes(net, samples):
    mod = _residual(net, [1.0, 1e-3, 1.0])
    pruned = PruneBlocks(samples, exclude=["stem"])(mod)
    names = set(get_params(pruned))
    assert "b1.conv1.weight" not in names
    assert {"b0.conv1.weight", "b2.conv1.weight"} <= names
    report = get_surgery(pruned)
    assert len(report.blocks) == 1
    assert report.params_after < report.params_before
    assert report.macs_after < report.macs_before


def test_leaving_out_a_branch_of_zeros_changes_nothing(net, samples):
    mod = _residual(net, [1.0, 0.0])
    pruned = PruneBlocks(samples, max_error=1e-12)(mod)
    assert "b1.conv2.weight" not in get_params(pruned)
    np.testing.assert_allclose(run(pruned, samples)[0], run(mod, samples)[0], rtol=1e-6)


def test_removal_stops_at_the_error(net, samples):
    mod = _residual(net, [0.0, 0.0, 1.0])
    report = get_surgery(PruneBlocks(samples, count=3, max_error=1e-9)(mod))
    assert len(report.blocks) == 2


def test_nothing_to_remove_is_remarked(net):
    network = net((1, 8))
    mod = network.finish(network.dense(network.x, 3))
    pruned = PruneBlocks([np.ones((2, 8), "float32")])(mod)
    assert get_surgery(pruned) is None
    assert get_remarks(pruned)[0].message == "no block could be removed"


def test_ranking_is_by_the_change_of_the_output(net, samples):
    mod = _residual(net, [0.5, 0.1, 2.0])
    wanted = run(mod, samples)
    errors = {block.name: relative_error(run(remove_block(mod, block), samples), wanted) for block in find_blocks(mod)}
    report = get_surgery(PruneBlocks(samples)(mod))
    assert report.blocks == [min(errors, key=errors.get)]


@pytest.mark.parametrize(("options", "message"), [({"samples": []}, "samples"), ({"count": 0}, "at least 1")])
def test_options_are_checked(options, message, samples):
    with pytest.raises(UserError, match=message):
        PruneBlocks(**{"samples": samples, **options})
