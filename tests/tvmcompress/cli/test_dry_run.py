"""With --dry-run everything is checked, the recipe is written, and nothing is done."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Recipe


@pytest.fixture(autouse=True)
def nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def done(*_: object, **__: object) -> None:
        raise AssertionError("it was done")

    for place in ("steps.prune.Prune.run", "steps.calibrate.Calibrate.run", "measuring.benchmarking._measured"):
        monkeypatch.setattr(f"tvmcompress.{place}", done)
    monkeypatch.setattr("tvmcompress.tuning.tune.tune", done)
    monkeypatch.setattr("tvmcompress.sensitivity.channels.measure_sensitivity", done)
    monkeypatch.setattr("tvmcompress.search.quantization_sensitivity.measure_quantization_sensitivity", done)


@pytest.mark.parametrize("command", ["compress", "benchmark"])
def test_the_recipe(command: str, digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = (command, digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--prune", 0.3, "--quantize", "int8")
    ran = run(*given, "--dry-run", "-t", "x86", "-o", out)
    assert ran.code == 0, ran.err
    written = Recipe.load(out / "recipe.toml")
    assert Recipe.of(tomllib.loads(ran.out)) == written
    assert written.prune is not None
    assert (written.prune.ratio, written.quantize is not None) == (0.3, True)
    assert {path.name for path in out.iterdir()} == {"recipe.toml", "manifest.json"}
    found = run(*given, "--dry-run", "--json", "-o", tmp_path / "other").json
    assert found["recipe"] == written.model_dump(mode="json")
    assert found["steps"] == ["prune", "repair", "calibrate", "quantize"]


def test_what_is_there_stays(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ran = run("compress", digits / "digits.onnx", "--prune", 0.3, "--dry-run", "-o", tmp_path)
    assert ran.code == 0
    assert "was left as it is" in ran.err
    assert "ratio = 0.3" in ran.out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_would_be_refused_is_refused(digits: Path, tmp_path: Path) -> None:
    given = ("compress", digits / "digits.onnx", "--quantize", "int8", "--dry-run", "-o", tmp_path / "out")
    assert "does not exist" in refused(*given, "--calib", tmp_path / "none.npz")
    assert "there is no target" in refused(*given, "--calib", digits / "digits_calib.npz", "-t", "nowhere")


def test_tune_and_sensitivity_print_their_plan(digits: Path, tmp_path: Path) -> None:
    ran = run("tune", digits / "digits.onnx", "--trials", 7, "--dry-run")
    assert tomllib.loads(ran.out)["tune"]["trials"] == 7
    given = ("sensitivity", digits / "digits.onnx", digits / "digits_test.npz", "--no-plot", "-o", tmp_path / "s", "--dry-run")
    assert run(*given, "--ratios", "0.5", "--json").json["sensitivity"]["ratios"] == [0.5]
    assert tomllib.loads(run(*given, "--quantize", "int8").out)["sensitivity"]["quantize"]["precision"] == "int8"
    assert list(tmp_path.iterdir()) == []
