"""The GitHub Action: its steps, run in a shell as a runner does, on the digits example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
DIGITS = ROOT / "examples"


def filled(text: str, inputs: dict[str, str], action: Path) -> str:
    """What a runner puts in the place of an expression."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "github.action_path":
            return str(action)
        assert name.startswith("inputs.")
        return inputs.get(name.removeprefix("inputs."), ACTION["inputs"][name.removeprefix("inputs.")].get("default", ""))

    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", value, text)


def step(name: str, inputs: dict[str, str], folder: Path, action: Path = ROOT) -> tuple[int, dict[str, str], str]:
    """Run a step: its exit code, the outputs it sets, and its summary."""
    found = STEPS[name]
    assert "${{" not in found["run"], "inputs come through the environment, where no shell reads them as code"
    files = {name: folder / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for path in files.values():
        path.write_text("")
    env = {
        **os.environ,
        **{key: filled(value, inputs, action) for key, value in found["env"].items()},
        **{key: str(path) for key, path in files.items()},
        "RUNNER_TEMP": str(folder),
    }
    # As a runner starts it.
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return done.returncode, outputs, files["GITHUB_STEP_SUMMARY"].read_text() + done.stderr


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """A folder in which the command of this environment stands where the first step installs it."""
    program = tmp_path / "tvmcompress" / "bin" / "tvmcompress"
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{os.pathsep.join(sys.path)}" exec {sys.executable} -m tvmcompress.cli.main "$@"\n'
    )
    program.chmod(0o755)
    (tmp_path / "recipe.toml").write_text('[prune]\nratio = 0.5\n[quantize]\nprecision = "int8"\n')
    return tmp_path


INPUTS = {
    "model": str(DIGITS / "digits.onnx"),
    "recipe": "recipe.toml",
    "calib": str(DIGITS / "digits_calib.npz"),
    "eval": str(DIGITS / "digits_test.npz"),
    "options": "--no-repair\n--calib-samples 64  --no-onnx",
}


def test_it_runs_a_recipe(runner: Path) -> None:
    code, outputs, summary = step("Compress", {**INPUTS, "targets": "x86", "output": "with blanks"}, runner)
    assert code == 0, summary
    assert outputs == {"exit-code": "0", "report": "with blanks/report.json"}
    assert (runner / outputs["report"]).is_file()
    assert (runner / "with blanks" / "x86").is_dir()
    assert "accuracy" in summary


def test_it_fails_by_the_exit_code(runner: Path) -> None:
    """Half of the channels gone and not repaired costs more than a point."""
    code, outputs, summary = step("Compress", {**INPUTS, "gate-drop": "1"}, runner)
    assert (code, outputs["exit-code"]) == (4, "4"), summary
    code, outputs, _ = step("Compress", {**INPUTS, "model": "none.onnx; echo"}, runner)
    assert (code, outputs["exit-code"]) == (2, "2")


def test_it_is_set_up_by_the_script(tmp_path: Path) -> None:
    """The first step calls scripts/setup.sh of the action's own folder."""
    script = tmp_path / "action" / "scripts" / "setup.sh"
    script.parent.mkdir(parents=True)
    script.write_text('#!/bin/sh\necho "$@" >"$RUNNER_TEMP/called"\n')
    script.chmod(0o755)
    code, _, said = step("Set up tvmcompress", {"extras": "[train]"}, tmp_path, tmp_path / "action")
    assert code == 0, said
    assert (tmp_path / "called").read_text().strip() == f"{tmp_path}/tvmcompress .[train]"
    assert os.access(ROOT / "scripts" / "setup.sh", os.X_OK)


def test_every_input_is_used_and_documented() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    assert all(entry["description"] for entry in ACTION["inputs"].values())
