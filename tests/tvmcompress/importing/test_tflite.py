"""Importing integer TFLite models: the bytes of TFLite's own reference kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress import UserError
from tvmcompress.importing.tflite import load_tflite

pytest.importorskip("tflite")
litert = pytest.importorskip("ai_edge_litert.interpreter")

MODELS = ["ic_resnet8", "kws_dscnn", "vww_mobilenetv1_025_96", "ad_autoencoder"]


def reference(path: Path, samples: np.ndarray) -> np.ndarray:
    """What LiteRT's reference kernels compute, sample by sample."""
    interpreter = litert.Interpreter(
        model_path=str(path), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    outputs = []
    for sample in samples:
        interpreter.set_tensor(given, sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(made).copy())
    return np.concatenate(outputs)


@pytest.mark.shared
@pytest.mark.parametrize("name", MODELS)
def test_official_models_bit_for_bit(shared: Path, name: str) -> None:
    """LiteRT's reference kernel of fully connected layers rounds once; convolutions, sums and pools twice."""
    path = shared / "models" / f"{name}_int8.tflite"
    model = load_tflite(path)
    spec = model.inputs[0]
    samples = np.random.default_rng(0).integers(-128, 128, (20, *spec.shape[1:])).astype("int8")
    np.testing.assert_array_equal(model.run(samples)[0], reference(path, samples))


@pytest.mark.shared
def test_rounding_twice_changes_fully_connected_layers_only(shared: Path) -> None:
    path = shared / "models" / "ad_autoencoder_int8.tflite"
    samples = np.random.default_rng(0).integers(-128, 128, (5, 640)).astype("int8")
    once, twice = (load_tflite(path, dense_rounding=r).run(samples)[0] for r in ("single", "double"))
    differences = np.abs(once.astype(int) - twice.astype(int))
    assert 0 < differences.max() <= 4


@pytest.mark.shared
def test_described_in_float_terms(shared: Path) -> None:
    model = tvmcompress.load(shared / "models" / "ic_resnet8_int8.tflite")
    assert (model.inputs[0].dtype, model.inputs[0].layout, model.inputs[0].shape) == ("int8", "NHWC", (1, 32, 32, 3))
    assert "TFLite" in model.provenance[0]


def test_not_tflite(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"not a model at all")
    with pytest.raises(UserError, match="is not a TFLite file"):
        tvmcompress.load(path)


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    with pytest.raises(UserError, match="not a whole TFLite file|subgraphs"):
        tvmcompress.load(path)
