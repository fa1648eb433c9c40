"""Networks exported from PyTorch: they import as they are, and pruning any group of theirs equals zeroing it."""

# mypy: ignore-errors

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tvmcompress.importing import from_onnx
from tvmcompress.passes import PruneChannels, PruneHeads, get_params, get_surgery, groups, zero_channels
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.channels import analyze
from tvmcompress.passes.graph.interpreter import Interpreter
from tvmcompress.passes.pruning.prune_channels import prune

pytest.importorskip("torch")

from .. import torch_zoo as zoo
from ..conftest import run_on_vm

ARCHITECTURES = {architecture.name: architecture for architecture in zoo.ARCHITECTURES}


@cache
def imported(name):
    """The imported module, inputs, and what PyTorch computes for them."""
    architecture = ARCHITECTURES[name]
    network, sample = zoo.instantiate(architecture.build), architecture.sample()
    return from_onnx(zoo.export(network, sample)).module, sample, zoo.outputs(network, sample)


def assert_close(values, expected, tolerance):
    """Equal up to `tolerance` of each output's largest value."""
    for value, other in zip(values, expected, strict=True):
        assert value.shape == other.shape
        np.testing.assert_allclose(value, other, rtol=0, atol=tolerance * max(np.abs(other).max(), 1e-3))


def differ(values, others):
    """Whether any output has changed by more than rounding."""
    return any(np.abs(value - other).max() > 2e-6 * np.abs(other).max() for value, other in zip(values, others))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_imported_equals_torch(name):
    module, sample, expected = imported(name)
    assert_close(Interpreter(module)(sample), expected, 1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_as_many_groups_as_an_expert_would_prune(name):
    found = groups(imported(name)[0])
    assert sum(group.frozen is None for group in found) >= ARCHITECTURES[name].groups
    assert all(group.frozen for group in found if group.frozen is not None)


@pytest.mark.parametrize("ratio", [0.3, 0.7])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_group_pruned_equals_zeroed(name, ratio):
    module, sample, original = imported(name)
    graph = analyze(module)
    rng = np.random.default_rng(0)
    unchanged = []
    for group in graph.groups:
        count = min(max(round(ratio * group.size), 1), group.size - 1)
        units = np.sort(rng.permutation(group.size)[:count])
        pruned = prune(module, graph, {group.name: units}, "random")
        report = get_surgery(pruned)
        expected = Interpreter(zero_channels(module, report))(sample)
        assert_close(Interpreter(pruned)(sample), expected, 1e-5)
        assert relax.analysis.check_well_formed(pruned)
        assert sum(v.size for v in get_params(pruned).values()) < sum(v.size for v in get_params(module).values())
        # A few units may be dead behind a rectifier, not most of them.
        if ratio > 0.5 and not differ(expected, original):
            unchanged.append(group.name)
    assert not unchanged, "zeroing these changes nothing, so that nothing was tested"


@pytest.mark.parametrize("ratio", [0.3, 0.7])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_all_groups_pruned_equal_zeroed(name, ratio):
    module, sample, _ = imported(name)
    pruned = PruneChannels(ratio)(module)
    report = get_surgery(pruned)
    expected = Interpreter(zero_channels(module, report))(sample)
    if ratio < 0.5:
        assert_close(run_on_vm(pruned, sample), expected, 1e-4)
    assert_close(Interpreter(pruned)(sample), expected, 1e-5)
    assert relax.analysis.check_well_formed(pruned)
    assert report.params_after < report.params_before


NAMES = {
    "resnet_bottleneck": ["0.0", "2.body.0.0", "4.shortcut.0.weight"],
    "mobilenet_v2": ["1.0.0", "2.body.1.0.weight", "5.0"],
    "VisionTransformer": ["blocks.0.attention.qkv", "blocks.1.mlp.0.weight", "head.weight"],
    "UNet": ["down1.0", "bottom.1.0.bias", "up2"],
}


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_called_like_their_modules(name):
    main = imported(name)[0]["main"]
    known = {var.name for var in main.params} | {binding.var.name for binding in main.body.blocks[0].bindings}
    assert not [name for name in known if "onnx::" in name]
    assert set(NAMES[name]) <= known


HEADS = {"VisionTransformer": 2, "Swin": 3, "MobileVit": 2, "SegFormer": 1, "Bert": 1, "Encoder": 1, "Conformer": 1}


@pytest.mark.parametrize("name", HEADS)
def test_whole_heads_can_be_pruned(name):
    module, sample, _ = imported(name)
    pruned = PruneHeads(0.5)(module)
    report = get_surgery(pruned)
    assert [(group.size, len(group.kept)) for group in report.groups] == [(2, 1)] * HEADS[name]
    expected = Interpreter(zero_channels(module, report))(sample)
    assert_close(Interpreter(pruned)(sample), expected, 1e-5)


OLDER = ["mobilenet_v3", "normalizations", "DeepLab", "VisionTransformer", "ConvNext", "PoolFormer", "MobileVit"]


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("name", OLDER)
def test_older_opsets_have_the_same_groups(name, opset):
    architecture = ARCHITECTURES[name]
    network, sample = zoo.instantiate(architecture.build), architecture.sample()
    module = from_onnx(zoo.export(network, sample, opset_version=opset)).module
    assert_close(Interpreter(module)(sample), zoo.outputs(network, sample), 1e-5)
    sizes, expected = (sorted(g.size for g in groups(mod) if g.frozen is None) for mod in (module, imported(name)[0]))
    assert sizes == expected


@pytest.mark.parametrize("name", ["resnet_basic", "preactivation_resnet", "shufflenet_v2", "Conformer", "signal_cnn"])
def test_normalization_that_the_exporter_left_unfolded(name):
    architecture = ARCHITECTURES[name]
    network, sample = zoo.instantiate(architecture.build), architecture.sample()
    proto = zoo.export(network, sample, training=zoo.torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False)
    assert any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    module = from_onnx(proto).module
    assert_close(Interpreter(module)(sample), zoo.outputs(network, sample), 1e-5)
    assert sum(group.frozen is None for group in groups(module)) >= architecture.groups
    pruned = PruneChannels(0.5)(module)
    expected = Interpreter(zero_channels(module, get_surgery(pruned)))(sample)
    assert_close(Interpreter(pruned)(sample), expected, 1e-5)
