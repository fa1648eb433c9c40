"""Recipes: TOML out and in again, defaults, and refusals that name the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress import PruneRecipe, QuantizeRecipe, Recipe, UserError
from tvmcompress.passes.numbers.schemes import PRECISIONS, Scheme
from tvmcompress.passes.repair.repairs import REPAIRS
from tvmcompress.recipe.presets import PRESETS
from tvmcompress.recipe.recipe import LayerRecipe, as_prune_recipe, as_quantize_recipe

ratios = st.floats(0.001, 0.999)
prunes = st.builds(
    PruneRecipe,
    ratio=ratios,
    scope=st.sampled_from(["local", "global"]),
    selection=st.sampled_from(["remove", "fold", "best"]),
    importance=st.text(max_size=8),
    round_to=st.integers(1, 64),
    min_channels=st.integers(1, 8),
    exclude=st.lists(st.text(max_size=8), max_size=3).map(tuple),
    ratios=st.dictionaries(st.text(min_size=1, max_size=8), ratios, max_size=3),
    reconstruct=st.booleans(),
)
layers = st.builds(
    LayerRecipe,
    observer=st.text(max_size=8),
    observer_options=st.dictionaries(st.text(min_size=1, max_size=8), ratios, max_size=2),
    weights=st.none() | st.sampled_from(["per_channel", "per_tensor"]),
    precision=st.none() | st.sampled_from(PRECISIONS),
    weight_bits=st.sampled_from([None, 7, 8]),
    group_size=st.none() | st.integers(0, 128),
)


def _quantize(precision: str, group_size: int, layers: dict[str, LayerRecipe], **options: Any) -> QuantizeRecipe:
    """Groups are those of int4 weights, and refused with others."""
    if precision != "int4":
        group_size, layers = 0, {name: layer.model_copy(update={"group_size": None}) for name, layer in layers.items()}
    return QuantizeRecipe(precision=precision, group_size=group_size, layers=layers, **options)


quantizes = st.builds(
    _quantize,
    preset=st.none() | st.sampled_from(sorted(PRESETS)),
    precision=st.sampled_from(PRECISIONS),
    activation_bits=st.sampled_from([7, 8]),
    group_size=st.integers(0, 128),
    observer=st.text(max_size=8),
    rounding=st.sampled_from(["double", "single"]),
    repair=st.none() | st.lists(st.sampled_from(sorted(REPAIRS)), max_size=3).map(tuple),
    repair_options=st.dictionaries(
        st.sampled_from(sorted(REPAIRS)),
        st.dictionaries(st.text(min_size=1, max_size=8), ratios | st.integers() | st.booleans(), min_size=1, max_size=2),
        max_size=2,
    ),
    power_of_two=st.booleans(),
    symmetric=st.booleans(),
    layers=st.dictionaries(st.text(min_size=1, max_size=8), layers, max_size=2),
)
recipes = st.builds(
    Recipe,
    prune=st.none() | prunes,
    quantize=st.none() | quantizes,
    calibration_samples=st.none() | st.integers(1, 1000),
)


@given(recipe=recipes)
@settings(max_examples=200, deadline=None)
def test_toml_round_trip(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    recipe.save(path)
    assert Recipe.load(path) == recipe


def test_a_table_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[prune]\nratio = 0.3\nscope = "global"\n\n[prune.ratios]\n"conv1*" = 0.1\n\n[quantize]\n')
    recipe = Recipe.load(path)
    assert recipe.prune == PruneRecipe(ratio=0.3, scope="global", ratios={"conv1*": 0.1})
    assert recipe.quantize == QuantizeRecipe()


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ({"prune": {"ratio": 0}}, "prune.ratio"),
        ({"prune": {"ratio": 1}}, "prune.ratio"),
        ({"prune": {"ratio": "half"}}, "prune.ratio"),
        ({"prune": {"scope": "everywhere"}}, "prune.scope"),
        ({"prune": {"round_to": 0}}, "prune.round_to"),
        ({"prune": {"target_macs": 1.0}}, "prune.target_macs"),
        ({"sparsify": {"pattern": "two of four"}}, "sparsify.pattern"),
        ({"quantize": {"precision": "int3"}}, "quantize.precision"),
        ({"quantize": {"layers": {"conv1": {}}}}, "quantize.layers.conv1: it needs an observer, weights"),
        ({"quantize": {"layers": {"conv1": {"weights": "none"}}}}, "quantize.layers.conv1.weights"),
        ({"quantize": {"weight_bits": 6}}, "quantize.weight_bits"),
        ({"quantize": {"group_size": -1}}, "quantize.group_size"),
        ({"quantize": {"preset": "tiny"}}, "there is no preset 'tiny'; choose one of default"),
        ({"prune": {"colour": 1}}, "prune.colour is unknown"),
        ({"trim": {}}, "trim is unknown"),
        ({"calibration_samples": 0}, "calibration_samples"),
    ],
)
def test_refusals_name_the_place(table: dict[str, Any], place: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe.of(table)
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[prune", b"\xff\xfe\x00", b"[prune]\nratio = 2"])
def test_faulty_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(UserError, match="recipe"):
        Recipe.load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Recipe.load(tmp_path / "none.toml")
    with pytest.raises(UserError, match="cannot be written"):
        Recipe().save(tmp_path / "no" / "such" / "folder.toml")


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5, float("nan"), "much"])
def test_ratios_outside(ratio: Any) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        as_prune_recipe(ratio)


def test_short_forms() -> None:
    assert as_prune_recipe(0.25) == PruneRecipe(ratio=0.25)
    assert as_prune_recipe({"scope": "global"}) == PruneRecipe(scope="global")
    assert as_prune_recipe(None) is None
    assert as_quantize_recipe("int8") == QuantizeRecipe()
    with pytest.raises(UserError, match="int5"):
        as_quantize_recipe("int5")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_recipes(name: str, tmp_path: Path) -> None:
    recipe = Recipe.of({"quantize": {"preset": name}})
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert Recipe.load(tmp_path / "recipe.toml") == recipe
    for key, value in PRESETS[name].values.items():
        found = getattr(recipe.quantize, key)
        assert (list(found) if isinstance(found, tuple) else found) == value


def test_what_stands_beside_a_preset_counts_before_it() -> None:
    recipe = as_quantize_recipe({"preset": "small", "group_size": 16})
    assert recipe is not None
    assert (recipe.precision, recipe.group_size, recipe.observer) == ("int4", 16, "mse")
    wider = as_quantize_recipe({"preset": "small", "precision": "int8"})
    assert wider is not None
    assert (wider.precision, wider.group_size) == ("int8", 0)


def test_schemes_of_layers_fall_back_to_the_table() -> None:
    recipe = QuantizeRecipe(precision="int4", group_size=8, layers={"stem*": LayerRecipe(precision="int8")})
    schemes = {pattern: Scheme(**values) for pattern, values in recipe.schemes().items()}
    assert list(schemes) == ["stem*", "*"]
    assert schemes["stem*"] == Scheme("int8", group_size=8)
    assert schemes["*"] == Scheme("int4", group_size=8)
    assert recipe.needs_ranges
    assert not QuantizeRecipe(precision="float16").needs_ranges


@pytest.mark.parametrize(
    ("options", "repairs"),
    [
        ({}, ()),
        ({"weights": "per_tensor"}, ("bias",)),
        ({"weights": "per_tensor", "repair": []}, ()),
        ({"precision": "int4"}, ("gptq",)),
        ({"layers": {"a*": {"precision": "int4"}}}, ("gptq",)),
        ({"precision": "int4", "repair": ["bias", "adaround"]}, ("bias", "adaround")),
        ({"precision": "int4", "max_drop": 0.5}, ()),
        ({"precision": "float16"}, ()),
    ],
)
def test_what_is_repaired_where_nothing_is_said(options: dict[str, Any], repairs: tuple[str, ...]) -> None:
    assert QuantizeRecipe(**options).repairs == repairs
