"""What other packages add: a real package, built and installed into a folder, beside one that is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tvmcompress import load
from tvmcompress.passes.pruning.importance import CRITERIA
from tvmcompress.passes.quantization.observers import OBSERVERS
from tvmcompress.passes.repair.repairs import REPAIRS

EXAMPLES = Path(__file__).parents[3] / "examples"
BROKEN = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "broken-plugin"
version = "1.0"
[project.entry-points."tvmcompress.targets"]
moon = "broken_plugin:Moon"
[project.entry-points."tvmcompress.criteria"]
guess = "broken_plugin:Guess"
[tool.setuptools]
py-modules = ["broken_plugin"]
"""
EXTRA = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "extra-plugin"
version = "1.0"
[project.entry-points."tvmcompress.criteria"]
slope = "extra_plugin:Slope"
[project.entry-points."tvmcompress.passes"]
Halve = "extra_plugin:Halve"
[tool.setuptools]
py-modules = ["extra_plugin"]
"""
EXTRA_CODE = """
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes import attach_params, detach_params
from tvmcompress.training import TaylorImportance

class Slope(TaylorImportance):
    name = "slope"
    def prepare(self, mod):
        print("labels", None if self.labels is None else len(self.labels))
        return super().prepare(mod)

@tvm.transform.module_pass(opt_level=0, name="Halve")
class Halve:
    "Halves a weight."
    def __init__(self, weight):
        self.weight = weight
    def transform_module(self, mod, ctx):
        bare, params = detach_params(mod)
        return attach_params(bare, {**params, self.weight: params[self.weight] / 2})
"""
LEFT_OUT = "of the package broken-plugin cannot be used: ImportError: the moon is not installed"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example's package and a broken one."""
    pytest.importorskip("setuptools", "70.1")
    folder, sources, broken, extra = (tmp_path_factory.mktemp(name) for name in ("installed", "sources", "broken", "extra"))
    # Building leaves files beside the sources.
    example = sources / "example"
    for path in (EXAMPLES / "plugin_criterion").rglob("*.*"):
        if path.suffix in (".toml", ".py"):
            copy = example / path.relative_to(EXAMPLES / "plugin_criterion")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (broken / "pyproject.toml").write_text(BROKEN)
    (broken / "broken_plugin.py").write_text("raise ImportError('the moon is not installed')\n")
    (extra / "pyproject.toml").write_text(EXTRA)
    (extra / "extra_plugin.py").write_text(EXTRA_CODE)
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(example), str(broken), str(extra)], check=True)
    return folder


def tvmcompress(installed: Path, *args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command, with the packages of a folder installed."""
    command = [sys.executable, "-m", "tvmcompress.cli.main", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == code, run.stderr
    return run


def test_a_board_is_listed_and_what_is_broken_is_named(installed: Path) -> None:
    run = tvmcompress(installed, "targets", "--json")
    found = {target["name"]: target for target in json.loads(run.stdout)}
    assert found["acme-sensor"]["ram_bytes"] == 65536
    assert {"x86", "cortex-m4"} <= set(found)
    assert run.stderr.strip() == f"Warning: the family of targets 'moon' {LEFT_OUT}; it is left out"


def test_a_criterion_and_an_observer_are_used(installed: Path, tmp_path: Path) -> None:
    digits = [EXAMPLES / "digits.onnx", "--calib", EXAMPLES / "digits_calib.npz", "--calib-samples", 32, "--no-onnx"]
    options = ["--prune", 0.25, "--importance", "spread", "--quantize", "int8", "--observer", "three_sigma"]
    run = tvmcompress(installed, "compress", *digits, *options, "--no-repair", "-o", tmp_path / "out")
    assert "broken" not in run.stderr
    recipe = (tmp_path / "out" / "recipe.toml").read_text()
    assert 'importance = "spread"' in recipe
    assert 'observer = "three_sigma"' in recipe


def test_a_criterion_on_gradients_gets_labels_and_a_pass_is_a_step(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    weight = "classifier.weight"
    (tmp_path / "r.toml").write_text(
        f'[[steps]]\nstep = "pass"\nname = "Halve"\noptions = {{ weight = "{weight}" }}\n'
        '[[steps]]\nstep = "prune"\nratio = 0.25\nimportance = "slope"\nreconstruct = false\n'
    )
    data = ["--calib", EXAMPLES / "digits_test.npz", "--calib-samples", 16, "--no-onnx", "--cache", tmp_path / "cache"]
    run = tvmcompress(
        installed, "compress", EXAMPLES / "digits.onnx", "--recipe", tmp_path / "r.toml", *data, "-o", tmp_path / "out"
    )
    assert "labels 16" in run.stdout
    before, after = load(EXAMPLES / "digits.onnx").params[weight], load(tmp_path / "out" / "model.tvmc").params[weight]
    assert {round(float(value), 6) for value in after.ravel()} <= {round(float(value) / 2, 6) for value in before.ravel()}


def test_suggestions_leave_out_what_is_broken(installed: Path, tmp_path: Path) -> None:
    options = ["--calib", EXAMPLES / "digits_calib.npz", "--prune", 0.5, "-o", tmp_path / "out"]
    run = tvmcompress(installed, "compress", EXAMPLES / "digits.onnx", *options, "--importance", "spraed", code=2)
    assert f"Warning: the importance criterion 'guess' {LEFT_OUT}; it is left out\n" in run.stderr
    assert run.stderr.endswith("Error: there is no importance criterion 'spraed'; did you mean spread?\n")


def test_the_help_names_what_there_is(installed: Path) -> None:
    text = " ".join(tvmcompress(installed, "compress", "--help-all").stdout.replace("│", " ").split())
    for name in [*CRITERIA, *OBSERVERS, *REPAIRS]:
        assert name in text
    assert "of other packages: guess, slope, spread." in text
    assert "of other packages: three_sigma." in text
