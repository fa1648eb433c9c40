"""The Dockerfile, as far as can be said without Docker: what it copies is there and enough, and what it calls exists."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
COPIED = [line.split()[1:] for line in LINES if line.startswith("COPY ")]


def test_what_is_copied_is_there_and_let_through() -> None:
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = {source for words in COPIED for source in words[:-1]}
    assert sources == allowed
    for source in sources:
        assert (ROOT / source).exists()


def test_what_is_copied_is_enough(tmp_path: Path) -> None:
    """The package builds from it, with all of its packages."""
    pytest.importorskip("setuptools", "77")
    for *sources, target in COPIED:
        for source in sources:
            place = tmp_path / target
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    metadata = "import setuptools.build_meta as b; b.prepare_metadata_for_build_editable('metadata')"
    (tmp_path / "metadata").mkdir()
    done = subprocess.run([sys.executable, "-c", metadata], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    mapped = {"passes": "passes", "targets": "targets", "tuning_logs": "tuning_logs"}
    for package in packages:
        parts = package.split(".")
        path = "/".join(parts[1:]) if len(parts) > 1 and parts[1] in mapped else "/".join(parts)
        assert (tmp_path / path / "__init__.py").exists(), package


def test_extras_and_the_script_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (default,) = (re.fullmatch(r"ARG EXTRAS=\[(.*)\]", line) for line in LINES if line.startswith("ARG EXTRAS"))
    assert default is not None
    assert set(default[1].split(",")) <= set(extras)
    assert any(line.startswith("RUN scripts/setup.sh .venv ") for line in LINES)
    assert 'ENTRYPOINT ["tvmcompress"]' in LINES
