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


COMMANDS = {
    "tune": ("digits.onnx", "--trials", 7, "-t", "cortex-m4", "-t", "x86"),
    "sensitivity": ("digits.onnx", "digits_test.npz", "--no-plot", "--ratios", "0.25,0.5"),
    "distill": (
        "--teacher",
        "digits.onnx",
        "--width",
        0.5,
        "--train-data",
        "digits_test.npz",
        "--epochs",
        3,
        "--augment",
        "flip",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_recipe_of_another_command(command: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written, taken by --recipe alone, and written again alike; an option replaces its entry."""
    pytest.importorskip("torch")
    monkeypatch.chdir(digits)
    out = tmp_path / "out"
    ran = run(command, *COMMANDS[command], "--dry-run", "-o", out)
    assert ran.code == 0, ran.err
    written = (out / "recipe.toml").read_text()
    assert ran.out == written
    again = tomllib.loads(run(command, "--recipe", out / "recipe.toml", "--dry-run", "-o", tmp_path / "again").out)
    expected = tomllib.loads(written)[command] | {"output": str(tmp_path / "again")}
    assert again == {command: expected}
    key, value = {"tune": ("trials", 9), "sensitivity": ("limit", 20), "distill": ("epochs", 5)}[command]
    other = run(command, "--recipe", out / "recipe.toml", f"--{key}", value, "--dry-run", "--json").json
    assert other[command][key] == value
    assert other[command] == tomllib.loads(written)[command] | {key: value}


def test_what_recipes_of_commands_say_is_what_is_done(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, object] = {}

    def noted(*given: object, **named: object) -> None:
        called.update(named, given=given)
        raise KeyboardInterrupt

    monkeypatch.setattr("tvmcompress.tuning.tune.tune", noted)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"[tune]\nmodel = '{digits / 'digits.onnx'}'\ntarget = 'cortex-m4'\ntrials = 7\nminutes = 1.5\nretune = true\n"
    )
    run("tune", "--recipe", recipe)
    assert called["given"][1:3] == ("cortex-m4", 7)  # type: ignore[index]
    assert (called["time_limit"], called["retune"]) == (90.0, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tune]\ntrialz = 3", "tune.trialz is unknown; a recipe of tune has batch, "),
        ("[prune]\nratio = 0.5", "holds [prune]; a recipe of tune is one table, [tune]"),
        ("", "holds nothing; a recipe of tune is one table, [tune]"),
        ("tune = 3", "holds [tune]; a recipe of tune is one table, [tune]"),
        ("[tune]\ntrials = 1.5", "'--trials'"),
        ("[tune]\ntrials = 0", "'--trials'"),
        ("[tune]\ntrials = {a = 1}", "tune.trials is a table"),
        ("[tune", "recipe.toml: "),
    ],
)
def test_recipes_of_commands_that_are_wrong(text: str, message: str, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    assert message in refused("tune", digits / "digits.onnx", "--recipe", tmp_path / "recipe.toml")
