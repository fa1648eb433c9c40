"""Model: exact round trip, damaged files, preprocessing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import tvmcompress
from tests.tvmcompress.importing.test_onnx import model, small_network
from tvmcompress import InputSpec, Model, UserError
from tvmcompress.importing import from_onnx
from tvmcompress.model import Preprocessing
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.module_params import PARAMS_ATTR


@pytest.fixture(scope="module")
def small() -> Model:
    imported = from_onnx(small_network(13))
    return imported.with_preprocessing(Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2,)))


def test_exact_round_trip(small: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.tvmc"
    small.save(path)
    again = tvmcompress.load(path)
    tvm.ir.assert_structural_equal(
        small.module.without_attr(PARAMS_ATTR), again.module.without_attr(PARAMS_ATTR), map_free_vars=True
    )
    assert list(again.params) == list(small.params)
    for name, value in small.params.items():
        assert again.params[name].dtype == value.dtype
        np.testing.assert_array_equal(again.params[name], value)
    assert (again.inputs, again.outputs, again.provenance) == (small.inputs, small.outputs, small.provenance)
    assert [path.name for path in tmp_path.iterdir()] == ["model.tvmc"]


def test_names_of_weights_are_no_names_of_files(tmp_path: Path) -> None:
    names = ["../../x", "a\0b", "a\0c", "a//b", "\N{ZERO WIDTH SPACE}", "C:\\x"]
    values = {name: np.full((1, 3), index, np.float32) for index, name in enumerate(names)}
    sums = ["x", "s1", "s2", "s3", "s4", "s5", "y"]
    nodes = [helper.make_node("Add", [sums[index], name], [sums[index + 1]]) for index, name in enumerate(names)]
    made = from_onnx(model(nodes, values, shape=[1, 3]))
    made.save(tmp_path / "model.tvmc")
    again = tvmcompress.load(tmp_path / "model.tvmc")
    assert list(again.params) == list(made.params)
    for name, value in made.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    with zipfile.ZipFile(tmp_path / "model.tvmc") as archive:
        assert {name.removeprefix("params/").removesuffix(".npy") for name in archive.namelist()[2:]} <= set("0123456")


@pytest.mark.parametrize("damage", ["truncate", "version", "text"])
def test_damaged_files(small: Model, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.tvmc"
    small.save(path)
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("not a model")
    else:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        entries["model.json"] = entries["model.json"].replace(b'"format": 2', b'"format": 99')
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    with pytest.raises(UserError, match="another version" if damage == "version" else "damaged"):
        Model.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": 3}, {"inputs": [{"name": "x"}]}, {"inputs": ["x"]}, {"outputs": None}, {"provenance": 1}, {"params": []},
        {"params": ["no such weight"]}, {"params": {"a": 1}}, {"format": [2]}, {"tvm": None},
    ],
)  # fmt: skip
def test_descriptions_that_do_not_fit(small: Model, tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "model.tvmc"
    small.save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["model.json"] = json.dumps({**json.loads(entries["model.json"]), **change}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match=r"is damaged|another version"):
        Model.load(path)


def test_unwritable_folder(small: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        small.save(tmp_path / "missing" / "model.tvmc")


def test_with_params_replaces_values(small: Model) -> None:
    x = np.ones((1, 3, 8, 8), "float32")
    zeroed = small.with_params({"fc.weight": np.zeros_like(small.params["fc.weight"])})
    np.testing.assert_allclose(zeroed.run(x)[0][0], small.params["fc.bias"], rtol=1e-6)
    assert small.run(x)[0].any()


def test_preprocessing_per_channel() -> None:
    raw = np.full((2, 3, 4, 4), 255, "uint8")
    made = Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))(raw)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[:, :, 0, 0], [[1.0, 3.0, 7.0]] * 2, rtol=1e-5)
    with pytest.raises(ValueError, match="std must not be zero"):
        Preprocessing(std=(0.0,))


def test_apply_notes_what_was_done(small: Model) -> None:
    from tvmcompress.passes import Canonicalize

    assert small.apply(Canonicalize(), note="made canonical").provenance[-1] == "made canonical"


def test_several_inputs_are_described() -> None:
    proto = model([helper.make_node("Relu", ["x"], ["y"])], {}, shape=[2, 5])
    assert from_onnx(proto).inputs == (InputSpec(name="x", shape=(2, 5)),)


def test_a_file_of_the_format_before_is_read(small: Model, tmp_path: Path) -> None:
    """Its parameters lie in files called like them."""
    small.save(tmp_path / "new.tvmc")
    with zipfile.ZipFile(tmp_path / "new.tvmc") as new, zipfile.ZipFile(tmp_path / "old.tvmc", "w") as old:
        meta = json.loads(new.read("model.json"))
        for index, name in enumerate(meta.pop("params")):
            old.writestr(f"params/{name}.npy", new.read(f"params/{index}.npy"))
        old.writestr("model.json", json.dumps({**meta, "format": 1}))
        old.writestr("module.json", new.read("module.json"))
    read = Model.load(tmp_path / "old.tvmc")
    assert list(read.params) == list(small.params)
    x = np.random.default_rng(0).normal(size=small.inputs[0].shape).astype("float32")
    np.testing.assert_array_equal(read.run(x)[0], small.run(x)[0])
