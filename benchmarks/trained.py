"""Trained models and labelled data that the benchmarks run on, where they are there.

They lie in the folder named by TVMCOMPRESS_SHARED, or in a folder `shared` beside the repository. Their licences forbid
shipping them with the project.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tvmcompress
from tvmcompress.model import Model

FILES = {
    "ic": "ic_resnet8_fp32.onnx",
    "resnet20": "cifar_resnet20_fp32.onnx",
    "kws": "kws_dscnn_fp32.onnx",
    "vww": "vww_mobilenetv1_025_96_fp32.onnx",
    "ad": "ad_autoencoder_fp32.onnx",
}


@dataclass(frozen=True)
class Trained:
    """A model with its data.

    Attributes:
        name: Short name.
        model: The float model.
        calibration: Unlabelled samples, float32, batch first, in the layout of the input.
        images: Samples that are evaluated, none of them in `calibration`.
        labels: int (samples,); None for the autoencoder.
    """

    name: str
    model: Model
    calibration: np.ndarray
    images: np.ndarray
    labels: np.ndarray | None

    def accuracy(self, model: Model) -> float:
        """Percent of the evaluated samples that are classified right."""
        assert self.labels is not None
        return float((model.run(self.images)[0].argmax(-1) == self.labels).mean() * 100)


def folder() -> Path:
    """Where the models and data are; ends the program where they are not."""
    place = Path(os.environ.get("TVMCOMPRESS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (place / "models").is_dir():
        sys.exit(f"no trained models: {place / 'models'} is not there; set TVMCOMPRESS_SHARED to the folder that has them")
    return place


def load(name: str, samples: int, seed: int = 0, apart: int = 200) -> Trained:
    """A model and its data.

    Args:
        name: One of `FILES`.
        samples: Size of the calibration set. The keyword and person data have one set only: of `apart` chosen at random so
            many calibrate, the others are evaluated.
        seed: Another one gives another calibration set, chosen at random; of the CIFAR-10 data 0 gives the first samples.
        apart: See `samples`.
    """
    place = folder()
    model = tvmcompress.load(place / "models" / FILES[name])
    data = place / "data"
    if name == "ad":
        x = _spectra(data)
        return Trained(name, model, x[:samples], x[samples:], None)
    if name in ("kws", "vww"):
        file = np.load(data / ("kws01_dev500.npz" if name == "kws" else "vww01_dev500.npz"))
        x = file["x_float"] if name == "kws" else file["x_uint8"] / 255.0
        x, y = x.transpose(0, 3, 1, 2).astype(np.float32), file["y"]
        # The files are sorted: one kind of picture comes after the other.
        order = np.random.default_rng(seed).permutation(len(x))
        calibration, rest = order[: min(samples, apart)], order[apart:]
        return Trained(name, model, x[calibration], x[rest], y[rest])
    test, train = np.load(data / "cifar10_dev734.npz"), np.load(data / "cifar10_train8068.npz")
    order = np.random.default_rng(seed).permutation(len(train["y"])) if seed else np.arange(len(train["y"]))
    calibration, images = pixels(train["x_uint8"][order[:samples]], name), pixels(test["x_uint8"], name)
    return Trained(name, model, calibration, images, test["y"])


def pixels(raw: np.ndarray, name: str) -> np.ndarray:
    """CIFAR-10 images, uint8 (N, 32, 32, 3), as a model takes them."""
    x = raw.transpose(0, 3, 1, 2).astype(np.float32)
    if name == "ic":
        return x
    mean = np.array((0.485, 0.456, 0.406), np.float32).reshape(1, 3, 1, 1)
    std = np.array((0.229, 0.224, 0.225), np.float32).reshape(1, 3, 1, 1)
    return (x / 255.0 - mean) / std


def _spectra(data: Path) -> np.ndarray:
    """(600, 640): spectra of vibration signals in dB, in the range of the log-mel energies the autoencoder was trained on."""
    x = np.load(data / "cwru_bearing_trainval.npz")["x"].reshape(-1, 1024)
    frames = x[:600].reshape(600, 4, 256)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(256), axis=2))[:, :, 1:]
    power = 10.0 * np.log10(np.square(spectrum) + 1e-10)
    stacked = np.concatenate([power, power[:, :1]], 1).reshape(600, 640)
    return (stacked - stacked.mean() - 30.0).clip(-90, 20).astype(np.float32)
