"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tvmcompress.cli.running import run

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_python(number: int, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-c", SNIPPETS[number]], cwd=tmp_path, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    if number == 0:
        assert "accuracy=0.9" in done.stdout
        assert len(SNIPPETS[0].strip().splitlines()) <= 5


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the first screen, on the example's files."""
    block = re.search(r"## From the command line\n\n(.*?)\n\n", README, re.DOTALL)
    assert block is not None
    commands = block.group(1).replace("\\\n", " ").strip().splitlines()
    assert len(commands) == 2
    _lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "tvmcompress"
        # The emulated target has tests of its own, and needs a cross compiler.
        without = re.sub(r"--target cortex-m4", "", command) if "cortex" in command else command
        ran = run(*shlex.split(without)[1:])
        assert ran.code == 0, ran.err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    reports = {"report.json", "report.html"}
    assert written == {"model.tvmc", "model.onnx", "recipe.toml", "manifest.json", "node_data", "x86", *reports}


def test_commands_of_precisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"\n\n((?:    tvmcompress .*\n)+)", README)
    commands = next(block for block in blocks if "--max-drop" in block).strip().splitlines()
    _lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = shlex.split(command.replace("--target cortex-m4", "--calib-samples 20"))[1:]
        ran = run(*words, *(["--no-plot"] if words[0] == "sensitivity" else []))
        assert ran.code == 0, ran.err


def _lay_out(folder: Path) -> None:
    """The example's files under the names that the README uses."""
    for name, file in (
        ("model.onnx", "digits.onnx"),
        ("data.npz", "digits_calib.npz"),
        ("test.npz", "digits_test.npz"),
    ):
        (folder / name).symlink_to(ROOT / "examples" / file)


def test_files_that_are_named_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
