"""The training script of the example: what it writes is what the repository holds, in kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tvmcompress

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")


def test_one_epoch(digits: Path, tmp_path: Path) -> None:
    """The ONNX file computes what PyTorch computed, and the data is the data in the repository."""
    done = subprocess.run(
        [sys.executable, digits / "train_digits.py", "--epochs", "1", "--width", "8", "--output", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.split("training images, ")[1].split(" %" if " %" in done.stdout else "%")[0]
    found = tvmcompress.evaluate(tvmcompress.load(tmp_path / "digits.onnx"), tmp_path / "digits_test.npz")
    assert found.accuracy is not None
    # Pooling sums in another order: a picture on the edge may fall to the other side.
    assert abs(found.accuracy * 100 - float(said)) < 0.5
    for name in ("digits_calib.npz", "digits_test.npz"):
        ours, theirs = np.load(digits / name), np.load(tmp_path / name)
        for key in ("x_uint8", "y"):
            np.testing.assert_array_equal(ours[key], theirs[key])


def test_calibration_and_test_images_are_different_ones(digits: Path) -> None:
    calibration, test = (np.load(digits / f"digits_{kind}.npz")["x_uint8"] for kind in ("calib", "test"))
    assert (len(calibration), len(test)) == (400, 600)
    seen = {image.tobytes() for image in calibration}
    assert not any(image.tobytes() in seen for image in test)
