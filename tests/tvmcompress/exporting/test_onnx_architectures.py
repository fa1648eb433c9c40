"""Architectures from PyTorch and back: written as ONNX they compute the same, float, quantized here and quantized elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tvmcompress import Model
from tvmcompress.exporting import to_onnx
from tvmcompress.importing import from_onnx
from tvmcompress.passes import LowerQDQ, Quantize, calibrate, get_remarks

pytest.importorskip("torch")

from ...passes import torch_zoo
from ..importing.quantizing import QDQ, UINT8, Samples, meaning, quantize

# Together they use nearly every operator that networks for images use.
NAMES = ["mobilenet_v3", "normalizations", "Yolo", "VisionTransformer"]


@pytest.fixture(scope="module", params=NAMES)
def architecture(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, Model, np.ndarray]:
    """As PyTorch wrote it, as it was imported, and samples."""
    found = next(entry for entry in torch_zoo.ARCHITECTURES if entry.name == request.param)
    proto = torch_zoo.export(torch_zoo.instantiate(found.build), found.sample())
    samples = np.concatenate([found.sample(seed)[0] for seed in range(8)])
    return proto, from_onnx(proto), samples


def first(model: Model, samples: np.ndarray) -> np.ndarray:
    return np.concatenate([model.run(sample[None])[0] for sample in samples])


def near(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    return float(np.abs(found - wanted).max()) <= tolerance * float(np.abs(wanted).max())


def test_float(architecture: tuple[onnx.ModelProto, Model, np.ndarray]) -> None:
    original, model, samples = architecture
    written = to_onnx(model)
    onnx.checker.check_model(written, full_check=True)
    assert near(meaning(written, samples[:2]), meaning(original, samples[:2]), 1e-4)


def test_quantized_here(architecture: tuple[onnx.ModelProto, Model, np.ndarray]) -> None:
    _, model, samples = architecture
    qdq = model.apply(Quantize(calibrate(model.module, [[sample[None]] for sample in samples])))
    written = to_onnx(qdq)
    onnx.checker.check_model(written, full_check=True)
    wanted = first(qdq, samples[:3])
    assert near(meaning(written, samples[:3]), wanted, 0.05)
    back = from_onnx(written)
    np.testing.assert_array_equal(first(back, samples[:3]), wanted)


def test_quantized_elsewhere(architecture: tuple[onnx.ModelProto, Model, np.ndarray], tmp_path: Path) -> None:
    original, _, samples = architecture
    onnx.save(original, tmp_path / "net.onnx")
    reader = Samples(samples, original.graph.input[0].name)
    proto = quantize(tmp_path / "net.onnx", reader, tmp_path / "q.onnx", QDQ, UINT8, per_channel=True)
    model = from_onnx(proto)
    wanted = meaning(proto, samples[:3])
    assert near(first(model, samples[:3]), wanted, 0.05)
    # Every operator rounds on its own, and the networks are small and random.
    assert near(first(model.apply(LowerQDQ()), samples[:3]), wanted, 0.35)


@pytest.mark.parametrize("name", ["ConvNext", "UNet", "EinsumAttention", "normalizations"])
def test_written_and_read_again_it_is_as_integer_as_before(name: str) -> None:
    """ONNX Runtime gives the same class, and what comes back lowers to the same integer program."""
    found = next(entry for entry in torch_zoo.ARCHITECTURES if entry.name == name)
    model = from_onnx(torch_zoo.export(torch_zoo.instantiate(found.build), found.sample()))
    samples = np.concatenate([found.sample(seed)[0] for seed in range(4)])
    qdq = model.apply(Quantize(calibrate(model.module, [[sample[None]] for sample in samples])))
    written = to_onnx(qdq)
    classes = [result.reshape(4, -1).argmax(1) for result in (meaning(written, samples), first(qdq, samples))]
    np.testing.assert_array_equal(*classes)
    back = from_onnx(written).apply(LowerQDQ())
    assert [remark for remark in get_remarks(back.module) if remark.pass_name == "LowerQDQ"] == []
    np.testing.assert_array_equal(first(back, samples), first(qdq.apply(LowerQDQ()), samples))
