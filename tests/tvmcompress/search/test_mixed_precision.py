"""Mixed precision: the limit holds, little is raised, nothing calibrated on is measured on, and the choice can be repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, Recipe, UserError, compress, evaluate, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.data.splits import take
from tvmcompress.evaluation.output_comparison import OutputComparison
from tvmcompress.recipe.quantize import LayerRecipe, QuantizeRecipe
from tvmcompress.search.mixed_precision import fewest
from tvmcompress.search.precision_choice import PrecisionChoice
from tvmcompress.search.precision_trials import free_units, with_precisions


@given(st.integers(0, 200), st.integers(0, 220))
def test_fewest_finds_the_smallest_in_few_trials(total: int, needed: int) -> None:
    tried: list[int] = []

    def enough(count: int) -> bool:
        assert 0 <= count <= total
        assert count not in tried
        tried.append(count)
        return count >= needed

    found = fewest(total, enough)
    assert found == (needed if needed <= total else None)
    assert len(tried) <= 2 * max(min(needed, total), 1).bit_length() + 2


@pytest.fixture(scope="module")
def calibration(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_calib.npz", digits_model.inputs, limit=40)


@pytest.fixture(scope="module")
def labelled(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_test.npz", digits_model.inputs, limit=60)


def noise(model: Model, original: Model, data: Dataset) -> float:
    """Signal-to-noise ratio of the output in dB."""
    wanted, got = (np.concatenate([m.run(*batch)[0] for batch in data.batches()]) for m in (original, model))
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / np.square(got - wanted, dtype=np.float64).sum()))


def test_a_limit_that_is_met_at_once(digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:
    result = compress(digits_model, calibration, quantize={"max_drop": 5}, search_data=labelled)
    choice = result.precisions
    assert choice is not None
    assert len(choice.steps) == 1
    assert set(choice.precisions.values()) == {"int8"}
    assert choice.limit == "accuracy at most 5 points lower"
    assert result.recipe.quantize == QuantizeRecipe()


@pytest.fixture(scope="module")
def quiet(digits_model: Model, calibration: Dataset, labelled: Dataset, tmp_path_factory: pytest.TempPathFactory) -> object:
    log = tmp_path_factory.mktemp("search") / "log.json"
    options = {"precision": "int4", "min_snr": 26.0}
    return compress(digits_model, calibration, quantize=options, search_data=labelled, search_log=log), log


def test_the_limit_holds_and_few_are_raised(quiet, digits_model: Model, labelled: Dataset) -> None:  # type: ignore[no-untyped-def]
    result, _ = quiet
    choice: PrecisionChoice = result.precisions
    assert noise(result.model, digits_model, labelled) >= 26.0
    assert choice.steps[-1].quality.snr == pytest.approx(noise(result.model, digits_model, labelled), abs=0.01)
    # All in int4 were too noisy, all in int8 are not needed.
    assert choice.steps[0].quality.snr < 26.0
    layers = choice.layers_in(choice.steps[-1])
    assert 0 < layers["int8"] < sum(layers.values())
    assert sum(choice.macs_in(choice.steps[-1]).values()) == pytest.approx(1)
    # The step before, one layer fewer, was not enough.
    raised = {step.precisions[name] == "int8" for step in choice.steps for name in step.precisions}
    assert raised == {True, False}
    below = [s for s in choice.steps if choice.layers_in(s).get("int8", 0) == layers["int8"] - 1]
    assert below
    assert all(step.quality.snr < 26.0 for step in below)


def test_the_recipe_repeats_it_without_searching(quiet, digits_model: Model, calibration: Dataset, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result, _ = quiet
    result.recipe.save(tmp_path / "recipe.toml")
    recipe = Recipe.load(tmp_path / "recipe.toml")
    assert recipe.quantize is not None
    assert not recipe.quantize.searches
    again = compress(digits_model, calibration, recipe=recipe)
    assert again.precisions is None
    image = calibration.inputs()[0]
    np.testing.assert_array_equal(again.model.run(image)[0], result.model.run(image)[0])


def test_a_search_goes_on_where_it_stopped(quiet, digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:  # type: ignore[no-untyped-def]
    _, log = quiet
    content = json.loads(log.read_text())
    trials = len(content["trials"])
    # A trial that is known is not made again: a changed number comes through.
    content["trials"][0]["quality"]["error"] = 0.0
    log.write_text(json.dumps(content))
    options = {"precision": "int4", "min_snr": 26.0}
    again = compress(digits_model, calibration, quantize=options, search_data=labelled, search_log=log)
    assert again.precisions is not None
    assert len(again.precisions.steps) == 1
    assert len(json.loads(log.read_text())["trials"]) == trials
    # With other samples nothing of it counts.
    other = compress(digits_model, calibration, quantize=options, search_data=labelled.first(50), search_log=log)
    assert other.precisions is not None
    assert len(other.precisions.steps) > 1


def test_what_is_calibrated_on_is_not_measured_on(digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:
    mixed = take(labelled, np.arange(20))
    both = (np.concatenate([calibration.inputs()[0], mixed.inputs()[0]]), np.zeros(60, np.int64))
    result = compress(digits_model, calibration, quantize={"max_drop": 99}, search_data=both)
    assert result.precisions is not None
    assert result.precisions.samples == 20
    with pytest.raises(UserError, match="all samples of .* are calibrated on"):
        compress(digits_model, calibration, quantize={"max_drop": 1}, search_data=calibration)
    with pytest.raises(UserError, match="choosing precisions needs samples that are not calibrated on"):
        compress(digits_model, calibration, quantize={"max_drop": 1})


def test_without_labels_the_answers_count(digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:
    images = labelled.inputs()[0]
    result = compress(digits_model, calibration, quantize={"max_drop": 2}, search_data=images)
    assert result.precisions is not None
    assert "others (no labels)" in result.precisions.limit
    agreement = evaluate(result.model, images, reference=digits_model).agreement
    assert agreement is not None
    assert agreement >= 0.98
    assert result.precisions.steps[-1].quality.agreement == pytest.approx(agreement)


def test_few_samples_are_remarked(digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:
    result = compress(digits_model, calibration, quantize={"max_drop": 1}, search_data=labelled)
    assert any("one of the 60 samples is 1.7 points" in remark.message for remark in result.remarks)


def test_all_in_float_is_the_original(digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:
    result = compress(digits_model, calibration, quantize={"min_snr": 400.0}, search_data=labelled.first(8))
    assert result.precisions is not None
    assert any("stay in float" in remark.message for remark in result.remarks)
    assert set(result.precisions.precisions.values()) == {"float32"}
    image = labelled.inputs()[0]
    np.testing.assert_array_equal(result.model.run(image)[0], digits_model.run(image)[0])


def test_what_the_recipe_names_stays(digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:
    options = QuantizeRecipe(precision="int4", exclude=("stem",), layers={"res*": LayerRecipe(precision="int8")})
    names = {unit.name for unit in free_units(digits_model, options)}
    assert names
    assert not any(name.startswith("res") or name == "stem" for name in names)
    with pytest.raises(UserError, match="no layer whose precision can be chosen"):
        free_units(digits_model, QuantizeRecipe(exclude=("*",)))
    impossible = {"min_snr": 60.0, "layers": {"stem": {"precision": "int4"}}}
    with pytest.raises(UserError, match="cannot be met even with all other layers in float32"):
        compress(digits_model, calibration, quantize=impossible, search_data=labelled.first(8))


def test_what_else_is_said_of_a_layer_stays(digits_model: Model) -> None:
    options = QuantizeRecipe(layers={"pw*": LayerRecipe(weights="per_tensor", observer="mse")})
    units = free_units(digits_model, options)
    made = with_precisions(options, units, {"pw1": "float32", "stem": "int8"})
    assert made.layers["pw1"] == LayerRecipe(precision="float32", weights="per_tensor", observer="mse")
    assert list(made.layers) == ["pw1", "pw*"]
    assert (made.precision_of("pw1"), made.precision_of("pw2"), made.precision_of("stem")) == ("float32", "int8", "int8")


def test_a_model_that_gives_back_its_input_has_no_answers(digits_model: Model, labelled: Dataset) -> None:
    comparison = OutputComparison(digits_model, labelled)
    assert comparison.original.error == 0
    assert comparison.original.agreement == 1


class TestCommand:
    def test_report_and_warning(self, digits: Path, tmp_path: Path) -> None:
        calib, test = digits / "digits_calib.npz", digits / "digits_test.npz"
        options = ("--calib", calib, "--calib-samples", 30, "--eval", test, "--eval-skip", 540, "--quantize", "int4")
        ran = run("compress", digits / "digits.onnx", *options, "--min-snr", 24, "-o", tmp_path / "out")
        assert ran.code == 0, ran.err
        assert "Precisions tried" in ran.out
        assert "chosen" in ran.out
        assert "optimistic" in ran.out
        assert max(map(len, ran.out.splitlines())) <= 100
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["precisions"]["samples"] == 60
        assert report["recipe"]["quantize"]["min_snr"] is None

    def test_a_part_for_the_search(self, digits: Path, tmp_path: Path) -> None:
        calib, test = digits / "digits_calib.npz", digits / "digits_test.npz"
        options = ("--calib", calib, "--calib-samples", 30, "--eval", test, "--eval-skip", 540, "--quantize", "int8")
        ran = run("compress", digits / "digits.onnx", *options, "--max-drop", 9, "--search-split", 0.5, "-o", tmp_path / "o")
        assert ran.code == 0, ran.err
        assert "optimistic" not in ran.out
        report = json.loads((tmp_path / "o" / "report.json").read_text())
        assert report["precisions"]["samples"] == report["models"][0]["evaluation"]["samples"] == 30

    def test_options_that_do_not_fit(self, digits: Path, tmp_path: Path) -> None:
        calib = ("--calib", digits / "digits_calib.npz")
        place = ("-o", tmp_path / "out")
        start = ("compress", digits / "digits.onnx", *calib, *place)
        assert "--search-data or --eval" in refused(*start, "--quantize", "int8", "--max-drop", 1)
        assert "--search-split says nothing" in refused(*start, "--quantize", "int8", "--search-split", 0.5)
        assert "--max-drop says nothing without --quantize" in refused(*start, "--prune", 0.5, "--max-drop", 1)
