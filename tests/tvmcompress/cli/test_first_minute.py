"""What somebody meets who has never used it: a command that needs no decisions, a short help, a doctor, the shell's help."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import typer

from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, Recipe
from tvmcompress.cli.doctor import mending
from tvmcompress.cli.main import app
from tvmcompress.cli.options.essential import ESSENTIAL
from tvmcompress.cli.options.recipe import RecipeOptions

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_nothing_but_a_model_and_samples(digits: Path, tmp_path: Path) -> None:
    """It becomes int8, nothing is pruned, and the recipe written does the same again."""
    given = ("compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 60)
    ran = run(*given, "-t", "x86", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "--max-ram 64K" in ran.out
    assert "--help-all" in ran.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [step["name"] for step in report["steps"]] == ["calibrate", "quantize", "bias", "lower"]
    recipe = Recipe.load(tmp_path / "out" / "recipe.toml")
    assert recipe.prune is None
    assert recipe.quantize is not None
    assert (recipe.quantize.precision, recipe.quantize.repair) == ("int8", ("bias",))
    again = run(*given, "--recipe", tmp_path / "out" / "recipe.toml", "-o", tmp_path / "again")
    assert again.code == 0, again.err
    assert "--max-ram 64K" not in again.out  # somebody who gives a recipe has decided
    first, second = (Model.load(tmp_path / name / "model.tvmc").params for name in ("out", "again"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_who_says_what_is_wanted_gets_that_alone(digits: Path, tmp_path: Path) -> None:
    given = ("compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 20)
    ran = run(*given, "--prune", 0.3, "-o", tmp_path / "out", "--json")
    assert ran.json["recipe"]["quantize"] is None


def shown(text: str) -> set[str]:
    """The options that a help shows."""
    return set(re.findall(r"^│ (?:\*)? {0,4}(--[\w-]+)", text, re.MULTILINE))


@pytest.mark.parametrize("command", ESSENTIAL)
def test_help_in_two_lengths(command: str) -> None:
    short, full = (run(command, option).out for option in ("--help", "--help-all"))
    options = [p for p in COMMANDS[command].params if p.param_type_name == "option" and not p.hidden]
    assert {option.name for option in options} >= set(ESSENTIAL[command])
    assert len(shown(short)) <= 14
    assert shown(full) == {next(o for o in p.opts if o.startswith("--")) for p in options} | {"--help"}
    left = len(shown(full)) - len(shown(short))
    assert left == 0 or f"{left} more options: tvmcompress {command} --help-all" in short
    assert "more options" not in full


def test_the_short_help_of_compress_has_what_the_readme_uses() -> None:
    text = run("compress", "--help").out
    assert shown(text) >= {"--calib", "--eval", "--prune", "--quantize", "--target", "--output", "--max-ram"}
    assert len(fields(RecipeOptions)) > 40  # of which few are needed


class TestDoctor:
    def test_all_works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tvmcompress.targets.micro.target.CortexMTarget.missing_tools", lambda self: [])
        ran = run("doctor", "-t", "cortex-m4", "--json")
        assert ran.code == 0
        assert ran.json["targets"]["cortex-m4"] == {"works": True, "missing": []}

    def test_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sentences = [
            "qemu-system-arm is not installed; run: apt-get install qemu-system-arm.",
            "arm-none-eabi-gcc is not installed; run: apt-get install gcc-arm-none-eabi.",
        ]
        monkeypatch.setattr("tvmcompress.targets.micro.target.CortexMTarget.missing_tools", lambda self: sentences)
        assert run("doctor").code == 0  # nobody asked for it
        ran = run("doctor", "-t", "cortex-m4")
        assert ran.code == 5
        assert "tools are missing for cortex-m4" in ran.err
        assert "sudo apt-get install gcc-arm-none-eabi qemu-system-arm" in ran.out
        assert run("doctor", "-t", "cortex-m4", "--json").json["verdict"]["exit_code"] == 5

    def test_what_every_target_says_is_understood(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With nothing on the PATH, every target is missing something, and one command brings it."""
        monkeypatch.setenv("PATH", "/nowhere")
        for name in ("x86", "cortex-a72", "cortex-m4"):
            found = run("doctor", "-t", name, "--json")
            assert found.json["targets"][name]["missing"], name
            assert found.json["commands"][0].startswith("sudo apt-get install "), name

    def test_one_command_for_all(self) -> None:
        assert mending(["a; run: apt-get install x y.", "b: apt-get install g++.", "c"]) == ["sudo apt-get install g++ x y"]
        assert mending([]) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("compress {digits}/digits.onnx -t cortex-m3", {"cortex-m3", "cortex-m33"}),
        ("tune {digits}/digits.onnx --target x8", {"x86"}),
        ("inspect {digits}/di", {"{digits}/digits.onnx"}),
        ("compress {digits}/digits.onnx --exclude stem", {"stem", "stem.bias_add", "stem.relu", "stem.add", "stem.relu_1"}),
        ("doctor -t mps3", {"mps3-an547"}),
    ],
)
def test_completion(words: str, expected: set[str], digits: Path) -> None:
    line = f"tvmcompress {words.format(digits=digits)}"
    asked = {
        "_TVMCOMPRESS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1),
    }  # fmt: skip
    script = "import sys; sys.argv[0] = 'tvmcompress'; from tvmcompress.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, **asked}, capture_output=True, text=True)
    assert set(done.stdout.split()) == {word.format(digits=digits) for word in expected}, done.stderr


class TestCompile:
    def test_a_model_as_it_is(self, digits: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        ran = run("compile", digits / "digits.onnx", "-o", out)
        assert ran.code == 0, ran.err
        assert {path.name for path in out.iterdir()} == {"manifest.json", "model.tvmc", "report.html", "report.json", "x86"}
        assert json.loads((out / "report.json").read_text())["recipe"] is None
        saved = run("run", out, digits / "digits_test.npz", "--limit", 8, "-o", tmp_path / "got.npz")
        assert saved.code == 0, saved.err
        images = np.load(digits / "digits_test.npz")
        with np.load(tmp_path / "got.npz") as outputs:
            got = next(iter(outputs.values()))
        key = next(name for name in images.files if name not in ("y", "labels"))
        assert images[key].shape[0] >= 8
        assert got.shape == (8, 10)

    def test_nothing_to_read(self, tmp_path: Path) -> None:
        assert "does not exist" in refused("compile", tmp_path / "none.onnx", "-o", tmp_path / "out")
