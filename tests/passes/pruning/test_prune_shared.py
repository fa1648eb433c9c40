"""Pruning of real trained models."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

import tvmcompress
from tvmcompress.passes import PruneChannels, get_surgery, groups, zero_channels
from tvmcompress.passes.graph.interpreter import run

MODELS = [
    *("ad_autoencoder_fp32", "cifar_resnet20_fp32", "cwru_cnn1d_fp32", "ic_resnet8_fp32", "kws_dscnn_fp32"),
    *("vww_mobilenetv1_025_96_fp32", "yunet_n_320_320"),
]


@pytest.mark.shared
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("ratio", [0.3, 0.7])
@pytest.mark.parametrize("name", MODELS)
def test_pruned_equals_zeroed(shared, name, ratio, scope):
    model = tvmcompress.load(shared / "models" / f"{name}.onnx")
    pruned = PruneChannels(ratio, scope=scope)(model.module)
    report = get_surgery(pruned)
    assert report.macs_after < report.macs_before
    inputs = [np.random.default_rng(0).random(spec.shape, "float32") for spec in model.inputs]
    outputs, expected = run(pruned, inputs), run(zero_channels(model.module, report), inputs)
    for value, other in zip(outputs, expected):
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5 * max(np.abs(other).max(), 1.0))


@pytest.mark.shared
def test_a_residual_network_has_a_group_a_stage_and_one_a_block(shared):
    module = tvmcompress.load(shared / "models" / "cifar_resnet20_fp32.onnx").module
    sizes = [group.size for group in groups(module) if group.frozen is None]
    assert sizes == [16] * 4 + [32] * 4 + [64] * 4


@pytest.mark.shared
def test_round_to_holds_on_a_mobilenet(shared):
    model = tvmcompress.load(shared / "models" / "vww_mobilenetv1_025_96_fp32.onnx")
    report = get_surgery(PruneChannels(0.4, scope="global", round_to=4)(model.module))
    assert all(len(group.kept) % 4 == 0 for group in report.groups)
