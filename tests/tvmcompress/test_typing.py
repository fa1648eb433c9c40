"""The types of the public names, as mypy sees them from outside, through the installed package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import tvmcompress as tc

model = tc.load("model.onnx")
assert_type(model, tc.Model)
data = tc.load_data("data.npz", model.inputs)
assert_type(data, tc.Dataset)
result = tc.compress(model, data, prune=0.5, quantize=tc.QuantizeRecipe(precision="int8"))
assert_type(result.model, tc.Model)
assert_type(tc.evaluate(result.model, data).accuracy, float | None)
artifact = tc.build(result.model, "cortex-m4", Path("out"))
outputs = artifact.run([np.zeros((1, 8, 8), np.float32)])
assert_type(artifact.measure().instructions, int | None)
names: list[str] = [description.name for description in tc.list_targets()]

tc.compress(model, data, prune=b"half")  # type: ignore[arg-type]
tc.QuantizeRecipe(precision="int5")  # type: ignore[arg-type]
tc.load(3)  # type: ignore[arg-type]
tc.decompress(model)  # type: ignore[attr-defined]
"""


@pytest.mark.slow
def test_a_script_that_uses_the_package_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("setuptools", "70.1")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    # Building leaves files beside the sources.
    for folder in ("passes", "targets", "tuning_logs", "tvmcompress"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, source)
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    # NumPy and pydantic are where this interpreter has them.
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (tmp_path / "script.py").write_text(SCRIPT)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--cache-dir", str(tmp_path / "cache")]
    options = ["--python-executable", str(environment / "bin" / "python"), "script.py"]
    done = subprocess.run([*mypy, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
