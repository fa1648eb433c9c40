"""What commands write is as the published schemas say."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.tvmcompress.cli.running import run
from tvmcompress.evaluation.noise import LayerNoise
from tvmcompress.recipe.recipe import Recipe
from tvmcompress.report.record import Host, ModelRecord, Report
from tvmcompress.report.schemas import SCHEMAS

jsonschema = pytest.importorskip("jsonschema")


def check(name: str, value: Any) -> None:
    """Against a schema; raises what does not fit."""
    schema = SCHEMAS[name]()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


def fits(name: str, value: Any) -> bool:
    """Whether it fits."""
    try:
        check(name, value)
    except jsonschema.ValidationError:
        return False
    return True


def test_compress(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(
        "compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--eval", digits / "digits_test.npz",
        "--prune", 0.4, "--quantize", "int8", "--max-drop", 5, "--search-split", 0.5, "--eval-skip", 400, "--calib-samples", 50,
        "--target", "x86", "-o", out, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    check("report", ran.json)
    written = json.loads((out / "report.json").read_text())
    check("report", written)
    check("recipe", tomllib.loads((out / "recipe.toml").read_text()))
    assert not fits("report", {**written, "version": 2})
    assert not fits("report", {**written, "builds": [{}]})
    assert not fits("report", {**written, "recipe": {"prune": {"ratio": 2}}})


def test_benchmark(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmcompress.targets.micro.target.CortexMTarget.missing_tools", lambda self: ["gcc is missing."])
    given = ("benchmark", digits / "digits.onnx", "-t", "x86", "-t", "cortex-m4", "--runs", 2, "--skip-missing", "--json")
    check("report", run(*given).json)


def test_tune(digits: Path, tmp_path: Path) -> None:
    ran = run("tune", digits / "digits.onnx", "--trials", 1, "--minutes", 0.01, "--log", tmp_path / "log", "--json")
    assert ran.code == 0, ran.err
    check("tuning", ran.json)


def test_an_exact_layer() -> None:
    noise = LayerNoise(name="a", op="conv2d", snr_db=float("inf"), channels=1, of_channels=1)
    model = ModelRecord(name="m", macs=1, params=1, weight_bytes=1, layers=(noise,))
    check("report", json.loads(Report(source="m", host=Host.this(), models=(model,)).model_dump_json()))


RECIPES = [
    ("[prune]\nratio = 0.5", True),
    ("[prune]\nratio = 1.5", False),
    ("[prune]\nration = 0.5", False),
    ('[quantize]\nprecision = "int5"', False),
    ('[quantize.layers."a*"]\nprecision = "int16x8"', True),
    ("[gate]\nmax_drop = 1", True),
    ('[[steps]]\nstep = "prune"\nratio = 0.3\n[[steps]]\nstep = "quantize"', True),
    ('[[steps]]\nstep = "prune"\nration = 0.3', False),
    ('[[steps]]\nstep = "pass"\nname = "EqualizeLayers"', True),
    ('[[steps]]\nstep = "pass"', False),
    ("[[steps]]\nratio = 0.3", False),
]


@pytest.mark.parametrize(("text", "right"), RECIPES)
def test_recipes(text: str, right: bool) -> None:
    """The schema takes what the reader takes."""
    values = tomllib.loads(text)
    assert fits("recipe", values) == right
    if right:
        Recipe.of(values)
    else:
        with pytest.raises(ValueError, match="the recipe is wrong"):
            Recipe.of(values)


def test_steps_of_other_packages() -> None:
    assert fits("recipe", tomllib.loads('[[steps]]\nstep = "clip"\nlimit = 3'))


def test_editors_are_told_what_fields_mean() -> None:
    fields = SCHEMAS["recipe"]()["$defs"]["PruneRecipe"]["properties"]
    assert all(entry.get("description") for entry in fields.values())


def test_the_command(tmp_path: Path) -> None:
    assert run("schema", "recipe").json == SCHEMAS["recipe"]()
    assert run("schema", "report", "-o", tmp_path / "r.json").code == 0
    assert json.loads((tmp_path / "r.json").read_text()) == SCHEMAS["report"]()
