"""The walk of somebody new: from the plugin that a page shows to its name in `--help`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, Block, blocks


def test_the_smallest_plugin_is_named_in_the_help_and_used(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77")
    shown: dict[str, Block] = {block.language: block for block in blocks(ROOT / "docs" / "how-to" / "plugins.md")}
    project, installed = tmp_path / "project", tmp_path / "installed"
    project.mkdir()
    (project / "pyproject.toml").write_text(shown["toml"].text)
    (project / "my_criteria.py").write_text(shown["python"].text)
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index", "--target", installed]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, project], check=True)
    env = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}
    (command,) = (line for line in shown["sh"].commands if line.startswith("tvmcompress compress"))

    def tvmcompress(*words: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "tvmcompress.cli.main", *words]
        return subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True)

    help_text = " ".join(tvmcompress("compress", "--help-all").stdout.replace("│", " ").split())
    assert re.search(r"of other packages: largest\.", help_text)
    for name, file in (("model.onnx", "digits.onnx"), ("data.npz", "digits_calib.npz")):
        (tmp_path / name).symlink_to(ROOT / "examples" / file)
    done = tvmcompress(*command.split()[1:], "--calib-samples", "16", "--no-repair", "--no-onnx")
    assert done.returncode == 0, done.stderr
    assert 'importance = "largest"' in (tmp_path / "out" / "recipe.toml").read_text()
