"""Options of a recipe: each sets what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tvmcompress.cli.running import refused, run
from tvmcompress.cli.options.recipe import RecipeOptions
from tvmcompress.cli.options.recipe_values import SETS
from tvmcompress.errors import UserError
from tvmcompress.recipe.gate import GateRecipe
from tvmcompress.recipe.recipe import FinetuneRecipe, PruneRecipe, QuantizeRecipe, Recipe, SparsifyRecipe

TABLES = {
    "prune": PruneRecipe,
    "finetune": FinetuneRecipe,
    "quantize": QuantizeRecipe,
    "qat": FinetuneRecipe,
    "gate": GateRecipe,
}


def recipe(**given: Any) -> Recipe:
    """The recipe of a command that was given some options."""
    return RecipeOptions(**given).recipe()


def test_each_sets_a_field() -> None:
    for name, (table, field) in SETS.items():
        assert field in TABLES[table].model_fields, name


def test_replaces_entries_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        'calibration_samples = 20\n[prune]\nratio = 0.3\nscope = "global"\n[quantize]\nobserver = "mse"\nexclude = ["a"]\n'
    )
    plan = recipe(recipe_file=tmp_path / "r.toml", prune=0.6, keep_float=["b", "c"], power_of_two=True, calib_samples=7)
    assert plan == Recipe(
        prune=PruneRecipe(ratio=0.6, scope="global"),
        quantize=QuantizeRecipe(observer="mse", exclude=("b", "c"), power_of_two=True),
        calibration_samples=7,
    )


def test_a_budget_replaces_the_ratio_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[prune]\nratio = 0.3\nmin_channels = 2\n")
    assert recipe(recipe_file=tmp_path / "r.toml", max_ram="16K").prune == PruneRecipe(max_ram=16384, min_channels=2)


def test_ratios_by_pattern_and_thresholds() -> None:
    assert recipe(prune=0.5, ratio=["a*=0.2", "b=c=0"]).prune == PruneRecipe(ratio=0.5, ratios={"a*": 0.2, "b=c": 0.0})
    assert recipe(threshold=0.3, scope="local").prune == PruneRecipe(threshold=0.3, scope="local")
    assert recipe(sparsify="<0.02").sparsify == SparsifyRecipe(threshold=0.02)
    for text in ("a", "=0.5", "a=b"):
        with pytest.raises(UserError, match="pattern and a fraction"):
            recipe(prune=0.5, ratio=[text])
    with pytest.raises(UserError, match="'<0.01'"):
        recipe(sparsify="<x")


def test_a_threshold_replaces_the_ratio_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[prune]\nratio = 0.3\n[sparsify]\npattern = "2:4"\nexclude = ["a"]\n')
    plan = recipe(recipe_file=tmp_path / "r.toml", threshold=0.1, sparsify="<0.5")
    assert plan == Recipe(prune=PruneRecipe(threshold=0.1), sparsify=SparsifyRecipe(threshold=0.5, exclude=("a",)))


def test_layers_with_ratios_of_their_own(digits: Path, tmp_path: Path) -> None:
    options = ("--prune", 0.5, "--ratio", "stem=0", "--no-repair", "-o", tmp_path / "out", "--json")
    groups = {group["name"]: group for group in run("compress", digits / "digits.onnx", *options).json["surgery"]["groups"]}
    assert "stem" not in groups
    assert groups


def test_repairs_in_order_or_none() -> None:
    assert recipe(quantize="int4", quant_repair=["equalize", "bias"]).quantize == QuantizeRecipe(
        precision="int4", repair=("equalize", "bias")
    )
    assert recipe(quantize="int4", quant_repair=["none"]).quantize == QuantizeRecipe(precision="int4", repair=())


def test_what_is_not_given_sets_nothing() -> None:
    assert recipe(exclude=[], keep_float=[]) == Recipe()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--exclude", "a"), "--exclude"),
        (("--no-repair",), "--repair"),
        (("--keep-float", "a"), "--keep-float"),
        (("--power-of-two",), "--power-of-two"),
        (("--symmetric",), "--symmetric"),
        (("--quant-repair", "bias"), "--quant-repair"),
    ],
)
@pytest.mark.parametrize("command", ["benchmark", "compress"])
def test_options_without_their_step(command: str, options: tuple[str, ...], name: str, digits: Path) -> None:
    assert f"{name} says nothing without" in refused(command, digits / "digits.onnx", *options)


def test_a_list_of_steps_and_a_cache(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[[steps]]\nstep = "prune"\nratio = 0.3\n\n[[steps]]\nstep = "prune"\nratio = 0.3\n')
    common = (digits / "digits.onnx", "--recipe", tmp_path / "r.toml", "--cache", tmp_path / "cache", "--json")
    first, again = (run("compress", *common, "-o", tmp_path / "out").json for _ in range(2))
    assert [step["name"] for step in first["steps"]] == ["prune", "repair", "prune", "repair"]
    assert any(step["seconds"] for step in first["steps"])
    assert not any(step["seconds"] for step in again["steps"])
    assert Recipe.load(tmp_path / "out" / "recipe.toml") == Recipe.load(tmp_path / "r.toml")
    assert "make that an entry of the list" in refused("compress", *common, "--quantize", "int8")
    assert "--train-data says nothing" in refused("compress", *common, "--train-data", digits / "digits_calib.npz")
    assert "--cache says nothing" in refused("benchmark", digits / "digits.onnx", "--cache", tmp_path / "cache")
