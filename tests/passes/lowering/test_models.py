"""Trained models in integers: the compiled program equals its reference, and accuracy stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress.passes import LowerQDQ, Quantize, calibrate, get_remarks
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import Interpreter, run

from ..integer import running

pytestmark = pytest.mark.shared

FILES = {
    "kws": "kws_dscnn_fp32",
    "ic": "ic_resnet8_fp32",
    "vww": "vww_mobilenetv1_025_96_fp32",
    "ad": "ad_autoencoder_fp32",
    "resnet20": "cifar_resnet20_fp32",
}


def log_mel_like(shared: Path) -> np.ndarray:
    """(n, 640) in the range of log-mel energies in dB: spectra of vibration signals, five frames of 128 bands."""
    x = np.load(shared / "data" / "cwru_bearing_trainval.npz")["x"].reshape(-1, 1024)
    frames = x[:600].reshape(600, 4, 256)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(256), axis=2))[:, :, 1:]
    power = 10.0 * np.log10(np.square(spectrum) + 1e-10)
    stacked = np.concatenate([power, power[:, :1]], 1).reshape(600, 640)
    # The network was trained on values around -30 dB.
    return (stacked - stacked.mean() - 30.0).clip(-90, 20).astype(np.float32)


def load(shared: Path, name: str) -> tuple[tvm.IRModule, np.ndarray, np.ndarray, np.ndarray | None]:
    """Module, calibration samples, evaluation samples, labels."""
    mod = tvmcompress.load(shared / "models" / f"{FILES[name]}.onnx").module
    data = shared / "data"
    if name == "ad":
        x = log_mel_like(shared)
        return mod, x[:200], x[200:], None
    if name in ("kws", "vww"):
        file = np.load(data / ("kws01_dev500.npz" if name == "kws" else "vww01_dev500.npz"))
        x = file["x_float"] if name == "kws" else file["x_uint8"] / 255.0
        x = x.transpose(0, 3, 1, 2).astype(np.float32)
        return mod, x[:100], x[100:], file["y"][100:]
    test, train = np.load(data / "cifar10_dev734.npz"), np.load(data / "cifar10_train8068.npz")

    def images(raw: np.ndarray) -> np.ndarray:
        x = raw.transpose(0, 3, 1, 2).astype(np.float32)
        if name == "ic":
            return x
        mean, std = (
            np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        )
        return (x / 255.0 - mean) / std

    return mod, images(train["x_uint8"][:200]), images(test["x_uint8"]), test["y"]


def outputs(mod: tvm.IRModule, x: np.ndarray) -> np.ndarray:
    """Outputs for all samples."""
    interpreter = Interpreter(mod)
    return np.concatenate([interpreter([x[start : start + 64]])[0] for start in range(0, len(x), 64)])


@pytest.mark.parametrize("name", FILES)
def test_int8(shared: Path, name: str) -> None:
    mod, calibration, x, labels = load(shared, name)
    lowered = LowerQDQ()(Quantize(calibrate(mod, [[calibration if labels is None else calibration[:64]]]))(mod))
    assert [remark for remark in get_remarks(lowered) if remark.pass_name == "LowerQDQ"] == []
    for sample in (x[:1], x[1:2]):
        np.testing.assert_array_equal(running.compiled(lowered, [sample])[0], run(lowered, [sample])[0])
    if labels is None:
        real, found = outputs(mod, x), outputs(lowered, x)
        relative = np.linalg.norm(found - real, axis=1) / np.linalg.norm(real, axis=1)
        assert relative.mean() < 0.03
        return
    # A few samples keep the test short; two models that differ by rounding only agree on nearly all.
    real, found = (outputs(m, x[:64]).argmax(1) for m in (mod, lowered))
    assert (real == found).mean() > 0.95
    assert (found == labels[:64]).mean() > 0.7
