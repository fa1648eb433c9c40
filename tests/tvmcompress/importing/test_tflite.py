"""Fully integer TFLite files: the bytes of TensorFlow Lite's reference kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress.errors import UserError
from tvmcompress.passes import IntegerCore, get_io_quantization
from tvmcompress.passes.interpreter import run

FILES = ["kws_dscnn_int8", "ic_resnet8_int8", "vww_mobilenetv1_025_96_int8", "ad_autoencoder_int8"]


def _reference(path: Path, inputs: np.ndarray) -> np.ndarray:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    # Its optimized kernels differ from its reference kernels.
    interpreter = litert.Interpreter(str(path), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    place, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    outputs = []
    for sample in inputs:
        interpreter.set_tensor(place, sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(result).copy())
    return np.concatenate(outputs)


@pytest.mark.shared
@pytest.mark.parametrize("name", FILES)
def test_official_models_bit_for_bit(shared: Path, name: str) -> None:
    path = shared / "models" / f"{name}.tflite"
    core = IntegerCore()(tvmcompress.load(path).module)
    shape = get_io_quantization(core).inputs[0].shape
    rng = np.random.default_rng(0)
    noise = rng.integers(-128, 128, (12, *shape[1:]))
    smooth = np.clip(np.cumsum(rng.integers(-9, 10, (12, *shape[1:])), axis=1) + rng.integers(-90, 90), -128, 127)
    inputs = np.concatenate([noise, smooth]).astype(np.int8)
    np.testing.assert_array_equal(run(core, [inputs])[0], _reference(path, inputs))


def test_files_that_are_no_tflite(tmp_path: Path) -> None:
    place = tmp_path / "model.tflite"
    place.write_bytes(b"nonsense that is long enough")
    with pytest.raises(UserError, match="not a TFLite file"):
        tvmcompress.load(place)
    place.write_bytes(b"\x1c\x00\x00\x00TFL3" + b"\xff" * 40)
    with pytest.raises(UserError, match="damaged"):
        tvmcompress.load(place)
