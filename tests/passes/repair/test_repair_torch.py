"""Repairs of the float model on networks of all kinds: what moves leaves the result alone."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.importing import from_onnx
from tvmcompress.passes import (
    CorrectBias,
    EqualizeLayers,
    Quantize,
    RoundByHessian,
    SmoothScales,
    calibrate,
    get_params,
    get_remarks,
)
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.quantization.quantized_layers import quantized_layers

pytest.importorskip("torch")

from .. import torch_models_cnn as cnn
from .. import torch_models_dense as dense
from .. import torch_models_mobile as mobile
from .. import torch_models_transformers as transformers
from ..torch_zoo import ARCHITECTURES, export, instantiate

EQUALIZED = [
    cnn.resnet_bottleneck,
    cnn.resnext,
    cnn.vgg,
    mobile.mobilenet_v1,
    mobile.shufflenet_v2,
    dense.UNet,
    dense.TemporalConvolutions,
]
SMOOTHED = [transformers.VisionTransformer, transformers.MlpMixer, transformers.Llama]


def _loaded(build):
    architecture = next(a for a in ARCHITECTURES if a.build is build)
    sample = architecture.sample()
    return from_onnx(export(instantiate(build), sample)).module, architecture


def _changed(before, after):
    first, second = get_params(before), get_params(after)
    return [name for name, value in first.items() if not np.array_equal(value, second[name])]


def _assert_same(before, after, inputs):
    for one, other in zip(run(before, inputs), run(after, inputs)):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-5 * max(np.abs(one).max(), 1.0))


@pytest.mark.parametrize("build", EQUALIZED, ids=lambda build: build.__name__)
def test_equalized(build):
    mod, architecture = _loaded(build)
    equal = EqualizeLayers()(mod)
    assert len(_changed(mod, equal)) >= 3, get_remarks(equal)
    _assert_same(mod, equal, architecture.sample(1))


@pytest.mark.parametrize("build", SMOOTHED, ids=lambda build: build.__name__)
def test_smoothed(build):
    mod, architecture = _loaded(build)
    smooth = SmoothScales(architecture.sample())(mod)
    assert len(_changed(mod, smooth)) >= 3, get_remarks(smooth)
    _assert_same(mod, smooth, architecture.sample(1))


def test_integers_of_a_transformer_are_repaired():
    mod, architecture = _loaded(transformers.MlpMixer)
    samples = [np.concatenate(parts) for parts in zip(*(architecture.sample(seed) for seed in range(32)))]
    quantized = Quantize(calibrate(mod, [samples]), precision="int4")(mod)
    assert len(quantized_layers(quantized)[0]) >= 4
    unseen = [np.concatenate(parts) for parts in zip(*(architecture.sample(seed) for seed in range(100, 132)))]
    wanted = run(mod, unseen)[0]
    repaired = CorrectBias(mod, samples)(RoundByHessian(mod, samples)(quantized))
    errors = [np.square(run(made, unseen)[0] - wanted).mean() for made in (quantized, repaired)]
    assert errors[1] < 0.8 * errors[0]


def test_a_network_that_mixes_samples_is_repaired_too():
    """Its class token stands in front of every sample's own tokens: stacked samples would be mixed."""
    mod, architecture = _loaded(transformers.VisionTransformer)
    samples, unseen = (
        [np.concatenate(parts) for parts in zip(*(architecture.sample(seed) for seed in seeds))]
        for seeds in (range(16), range(100, 116))
    )
    quantized = Quantize(calibrate(mod, [samples]), precision="int4")(mod)
    repaired = RoundByHessian(mod, samples)(quantized)
    wanted = run(mod, unseen)[0]
    errors = [np.square(run(made, unseen)[0] - wanted).mean() for made in (quantized, repaired)]
    assert errors[1] < 0.8 * errors[0]
    assert _changed(quantized, CorrectBias(mod, samples)(quantized))
