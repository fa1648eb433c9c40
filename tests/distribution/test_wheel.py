"""The sdist and the wheel carry everything: built, installed into an empty environment, and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tvmcompress.targets.registry import get_target

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("tvmcompress", "passes", "targets", "tuning_logs")


def data_files() -> set[str]:
    """What the package holds beside Python code: as it is named in the package."""
    listed = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.splitlines() if not name.endswith(".py")]
    return {name if name.startswith("tvmcompress/") else f"tvmcompress/{name}" for name in names}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the sdist."""
    pytest.importorskip("setuptools", "77")
    folder, sources = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("sources")
    # A copy of what git knows: building leaves files beside the sources.
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode != 0:
        pytest.skip("not a git checkout")
    for name in files.stdout.splitlines():
        if name.startswith((*(f"{source}/" for source in SOURCES), "pyproject", "README", "LICENSE", "MANIFEST")):
            copy = sources / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    build = "import sys, setuptools.build_meta as b; print(b.build_sdist(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, folder], cwd=sources, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, sdist], check=True)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment with the wheel; what it depends on is this environment's."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    # Paths alone, none of the hooks that editable installs leave there: the checkout must not be found.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    return folder / "bin"


def test_nothing_is_left_out(wheel: Path) -> None:
    carried = set(zipfile.ZipFile(wheel).namelist())
    assert data_files() - carried == set()
    python = {str(path.relative_to(ROOT)) for source in SOURCES for path in (ROOT / source).rglob("*.py")}
    named = {name if name.startswith("tvmcompress/") else f"tvmcompress/{name}" for name in python}
    assert named - carried == set()
    # Nothing but the package lands in site-packages.
    assert {name.split("/")[0].split("-")[0] for name in carried} == {"tvmcompress"}


def test_it_compiles_the_digits(installed: Path, tmp_path: Path) -> None:
    digits = ROOT / "examples"
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    where = (
        "import tvmcompress.passes as p, tvmcompress.targets as t, tvmcompress as c; print(c.__file__, p.__file__, t.__file__)"
    )
    found = subprocess.run(
        [installed / "python", "-c", where], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert all(path.startswith(str(installed.parent)) for path in found.stdout.split())
    targets = ["x86", *(["cortex-m4"] if not get_target("cortex-m4").missing_tools() else [])]
    command = [installed / "tvmcompress", "compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz"]
    options = ["--calib-samples", "64", "--quantize", "int8", "-o", "out"]
    done = subprocess.run(
        [*command, *options, *(word for target in targets for word in ("--target", target))],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for target in targets:
        assert (tmp_path / "out" / target / "artifact.json").is_file()
    assert (tmp_path / "out" / "report.json").is_file()
