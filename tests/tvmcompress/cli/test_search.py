"""`tvmcompress search` on the digits example: what it writes can be shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, Recipe, load_data
from tvmcompress.exploration.record import SearchResult
from tvmcompress.files.manifest import MANIFEST
from tvmcompress.report.record import Report


@pytest.fixture(scope="module")
def arguments(digits: Path) -> list[str]:
    data = ["--calib", str(digits / "digits_calib.npz"), "--eval", str(digits / "digits_test.npz")]
    return ["search", str(digits / "digits.onnx"), *data, "--calib-samples", "40", "-t", "cortex-m4"]


def test_a_search_ships_its_front(arguments: list[str], digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    text = run(*arguments, "--trials", 2, "--max-drop", 2, "-o", folder, "--no-plot").out
    result = SearchResult.model_validate_json((folder / "search.json").read_text())
    assert len(result.points) == 2
    assert result.points[0].stage == "measured"
    for number in result.front:
        place = folder / "points" / str(number)
        kept = json.loads((place / "point.json").read_text())
        assert kept["unseen"]["samples"] == 300
        assert kept["cost"] == result.point(number).cost
        report = Report.model_validate_json((place / "report.json").read_text())
        assert report.builds[0].measurement is not None
        assert report.builds[0].measurement.instructions == kept["cost"]
        assert report.models[-1].evaluation is not None
        assert report.models[-1].evaluation.correct == kept["unseen"]["correct"]
        assert "point.json" in report.files
        assert Recipe.load(place / "recipe.toml") == result.point(number).recipe
        assert {"model.tvmc", "model.onnx", "report.html", "cortex-m4", MANIFEST} <= {path.name for path in place.iterdir()}
        model = Model.load(place / "model.tvmc")
        data = load_data(digits / "digits_test.npz", model.inputs, limit=20)
        assert (model.run(*data.read(0, 20))[0].argmax(-1) == data.labels[:20]).mean() > 0.8  # type: ignore[index]
        assert f"{result.point(number).words.split(',')[0]}" in text
    assert "Written to" in text


def test_a_dry_run_writes_what_it_would_begin_with(arguments: list[str], tmp_path: Path) -> None:
    text = run(*arguments, "--dry-run", "-o", tmp_path / "dry").out
    recipes = sorted((tmp_path / "dry" / "starts").iterdir())
    assert len(recipes) == 8
    assert Recipe.load(recipes[2]).prune is not None
    assert "2: 90% of the MACs" in text


def test_an_energy_that_nothing_measures(arguments: list[str], tmp_path: Path) -> None:
    said = refused(*arguments, "--minimize", "energy", "-o", str(tmp_path / "out"))
    assert "what runs cortex-m4 here reports no energy" in said
