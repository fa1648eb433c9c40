"""The tarball in Model Library Format: what is in it, and that it is enough to build a program from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, UserError
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import Artifact, get_target

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
FLAGS = ["-mthumb", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]


@pytest.fixture(scope="module")
def folder(digits: Path, digits_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `compress` leaves."""
    place = tmp_path_factory.mktemp("mlf") / "out"
    data = digits / "digits_calib.npz"
    model = tvmcompress.compress(digits_model, data, quantize="int8", calibration_samples=50).model
    tvmcompress.build(model, "cortex-m4", place / "cortex-m4")
    model.save(place / "model.tvmc")
    return place


@pytest.fixture(scope="module")
def artifact(folder: Path) -> Artifact:
    """The build in it."""
    return tvmcompress.load_artifact(folder / "cortex-m4")


def _unpack(tarball: Path, place: Path) -> Path:
    with tarfile.open(tarball) as archive:
        archive.extractall(place, filter="data")
    return place


def test_the_layout_and_the_memory_map(folder: Path, artifact: Artifact, tmp_path: Path) -> None:
    ran = run("package", folder, "-o", tmp_path / "model.tar")
    assert ran.code == 0, ran.err
    place = _unpack(tmp_path / "model.tar", tmp_path / "model")
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert {"metadata.json", "parameters/model.params", "src/model.relax"} <= files
    assert {"codegen/host/include/model.h", "codegen/host/src/model.c", "codegen/host/lib/model_kernels.o"} <= files
    for name in files:
        assert name in ran.out
    metadata = json.loads((place / "metadata.json").read_text())
    module = metadata["modules"]["model"]
    assert (metadata["version"], module["model_name"], module["executors"]) == (7, "model", ["aot"])
    assert "cortex-m4" in module["target"][0]
    functions = module["memory"]["functions"]
    (main,) = functions["main"]
    measured = artifact.measure()
    assert main["workspace_size_bytes"] == measured.arena_bytes
    assert main["constants_size_bytes"] == measured.constant_bytes
    assert main["io_size_bytes"] == 64 + 10
    (image,) = main["inputs"].values()
    assert image["scale"] == artifact.inputs[0].scale
    names = {entry["function_name"] for entry in functions["operator_functions"]}
    # What several of them share is none of them.
    routines = re.findall(r"void (model_\w+)\(void\);", (place / "codegen/host/src/model_routines.c").read_text())
    assert len(routines) > 0
    assert names == {name for name in measured.functions if name.startswith("model_")} - {"model_run", *routines}
    assert any(entry["workspace"][0]["workspace_size_bytes"] > 0 for entry in functions["operator_functions"])


def test_parameters_and_source_are_those_of_the_model(folder: Path, tmp_path: Path) -> None:
    place = _unpack(tvmcompress.export_model_library(folder, tmp_path / "m.tar", target="cortex-m4"), tmp_path / "m")
    model = Model.load(folder / "model.tvmc")
    loaded = tvm.runtime.load_param_dict((place / "parameters" / "model.params").read_bytes())
    assert set(loaded) == set(model.params)
    for name, value in model.params.items():
        np.testing.assert_array_equal(loaded[name].numpy(), value)
    text = (place / "src" / "model.relax").read_text()
    assert "def main(" in text
    assert "qconv2d" in text


@pytest.mark.parametrize("emit", ["object", "c"])
def test_a_program_links_from_the_tarball_alone(folder: Path, emit: str, tmp_path: Path) -> None:
    built: Artifact | Path = folder
    if emit == "c":
        built = tvmcompress.build(folder / "model.tvmc", "cortex-m4", tmp_path / "c", emit="c", prefix="digits")
    place = _unpack(tvmcompress.export_model_library(built, tmp_path / "m.tar"), tmp_path / "m")
    shutil.rmtree(tmp_path / "c", ignore_errors=True)
    name = "digits" if emit == "c" else "model"
    main = place / "main.c"
    main.write_text(
        f'#include "{name}.h"\nstatic uint8_t arena[{name.upper()}_ARENA_BYTES] __attribute__((aligned(16)));\n'
        f"int main(void) {{ {name}_t m; return {name}_init(&m, arena, sizeof arena) || {name}_run(&m); }}\n"
    )
    host = place / "codegen" / "host"
    sources = [*sorted((host / "src").iterdir()), *sorted(host.glob("lib/*")), main]
    command = ["arm-none-eabi-gcc", *FLAGS, "-O1", "-specs=nosys.specs", "-I", host / "include", *sources, "-lm"]
    done = subprocess.run([*command, "-o", tmp_path / "a.elf"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_only_the_time_differs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(epoch: int) -> bytes:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(epoch))
        return tvmcompress.export_model_library(folder, tmp_path / "m.tar").read_bytes()

    first, second = made(0), made(0)
    assert first == second
    other = made(86400)
    assert other != first
    assert other.replace(b"1970-01-02", b"1970-01-01")[1024:] == first[1024:]


def test_without_the_model_there_is_the_library(artifact: Artifact, tmp_path: Path) -> None:
    moved = tmp_path / "alone" / "build"
    shutil.copytree(artifact.path, moved)
    with tarfile.open(tvmcompress.export_model_library(moved, tmp_path / "m.tar")) as archive:
        names = archive.getnames()
    assert not any("parameters" in name or "./src" in name for name in names)
    assert "./codegen/host/src/model.c" in names


def test_what_is_refused(folder: Path, digits_model: Model, tmp_path: Path) -> None:
    assert "no built model" in refused("package", tmp_path, "-o", tmp_path / "m.tar")
    assert "cannot be written" in refused("package", folder, "-o", tmp_path / "none" / "m.tar")
    broken = tmp_path / "broken"
    shutil.copytree(folder / "cortex-m4", broken)
    (broken / "model.c").unlink()
    with pytest.raises(UserError, match=r"lacks model\.c; build the model again"):
        tvmcompress.export_model_library(broken, tmp_path / "m.tar")
    x86 = tvmcompress.build(digits_model, "x86", tmp_path / "x86")
    with pytest.raises(UserError, match="holds libraries for Cortex-M and Cortex-A"):
        tvmcompress.export_model_library(x86, tmp_path / "m.tar")
    assert not (tmp_path / "m.tar").exists()
