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


def test_python(tmp_path: Path) -> None:
    (snippet,) = SNIPPETS
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "accuracy=0.9" in done.stdout
    assert len(snippet.strip().splitlines()) <= 5
    assert snippet in (ROOT / "docs" / "first-steps.md").read_text()


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the first screen, on the example's files."""
    (block,) = re.findall(r"\n\n((?:    tvmcompress .*\n(?:        .*\n)*)+)", README)
    commands = block.replace("\\\n", " ").strip().splitlines()
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


def test_it_is_short() -> None:
    """What it is, two commands, one picture, one table, links."""
    assert len(README.splitlines()) < 90
    assert len(re.findall(r"!\[", README)) == 1
    assert len(re.findall(r"^\|---", README, re.MULTILINE)) == 1


def test_the_picture_is_that_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import make_picture

    points = make_picture.points(make_picture.TABLE.read_text())
    assert len(points) == 20
    drawn = make_picture.PICTURE.read_text()
    assert len(drawn) < 100_000
    for point in points:
        figure = "does not fit" if point.instructions is None else f"{point.instructions / 1e6:.3g} M"
        assert figure in drawn, "run: python scripts/make_picture.py"
        assert point.accuracy == "0" or point.accuracy in drawn
