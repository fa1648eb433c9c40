"""Recipes as lists of steps: the same models as tables give, other orders, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvmcompress import MissingToolError, Model, Recipe, UserError, compress, load_data
from tvmcompress.compression import CompressionResult
from tvmcompress.data.dataset import Dataset
from tvmcompress.passes import Dequantize, EqualizeLayers, get_params
from tvmcompress.passes.graph.analysis import count_macs
from tvmcompress.passes.pruning.sparsify import get_masks
from tvmcompress.recipe.steps import PassRecipe
from tvmcompress.recipe.table import Table
from tvmcompress.steps.apply_pass import ApplyPass
from tvmcompress.steps.base import Context, State, Step
from tvmcompress.steps.plan import planned
from tvmcompress.steps.registry import STEPS


@pytest.fixture(scope="module")
def calibration(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_calib.npz", digits_model.inputs, limit=16)


@pytest.fixture(scope="module")
def labelled(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_test.npz", digits_model.inputs, limit=24)


def steps(*entries: str | dict[str, Any]) -> Recipe:
    """A recipe of steps, each its name or its entry."""
    return Recipe.of({"steps": [{"step": entry} if isinstance(entry, str) else entry for entry in entries]})


def same(one: Model, other: Model) -> None:
    """Refuse models that differ in a byte."""
    assert one.module.script() == other.module.script()
    assert one.provenance == other.provenance
    left, right = get_params(one.module), get_params(other.module)
    assert list(left) == list(right)
    for name, value in left.items():
        assert value.dtype == right[name].dtype
        np.testing.assert_array_equal(value, right[name])


TABLES: list[dict[str, Any]] = [
    {"prune": {"ratio": 0.5}, "quantize": {}},
    {"sparsify": {"sparsity": 0.6}, "quantize": {"precision": "int4", "repair": ["equalize", "bias"]}},
    {"prune": {"target_macs": 0.5, "reconstruct": False}, "sparsify": {"pattern": "2:4"}},
    {"quantize": {"precision": "int4", "max_drop": 1.0}},
    {"quantize": {"layers": {"stem": {"precision": "float32"}}, "weights": "per_tensor"}},
]


def test_a_quantized_network_is_pruned(digits_model: Model, calibration: Dataset) -> None:
    """Its weights are those that the integers stand for; quantized again they are integers once more."""
    quantized = compress(digits_model, calibration, recipe=steps("quantize"))
    back = compress(digits_model, calibration, recipe=steps("quantize", "dequantize"))
    assert back.qdq_model is None
    assert quantized.qdq_model is not None
    same_values = Dequantize()(quantized.qdq_model.module)
    assert back.model.module.script() == same_values.script()
    for name, value in get_params(same_values).items():
        np.testing.assert_array_equal(back.model.params[name], value)
        assert np.abs(value - digits_model.params[name]).max() <= np.abs(digits_model.params[name]).max() / 254 * 1.02
    removal = {"step": "prune", "ratio": 0.25, "reconstruct": False}
    pruned = compress(digits_model, calibration, recipe=steps("quantize", "dequantize", removal, "quantize"))
    assert pruned.qdq_model is not None
    assert count_macs(pruned.model.module) < 0.8 * count_macs(digits_model.module)
    kept = pruned.float_model.params["stem.weight"]
    rounded = get_params(same_values)["stem.weight"]
    assert 0 < len(kept) < len(rounded)
    assert all(any((channel == row).all() for row in rounded) for channel in kept)


@pytest.mark.parametrize("tables", TABLES, ids=lambda tables: "+".join(tables))
def test_a_list_gives_what_the_tables_give(
    tables: dict[str, Any], digits_model: Model, calibration: Dataset, labelled: Dataset, tmp_path: Path
) -> None:
    whole, listed = Recipe.of(tables), steps(*({"step": name, **table} for name, table in tables.items()))
    results = [compress(digits_model, calibration, recipe=recipe, search_data=labelled) for recipe in (whole, listed)]
    same(results[0].model, results[1].model)
    assert results[0].ranges == results[1].ranges
    assert [step.name for step in results[0].steps] == [step.name for step in results[1].steps]
    assert results[0].precisions == results[1].precisions
    # What was done can be done again from the recipe that is written beside it, without a search.
    for result in results:
        result.recipe.save(tmp_path / "recipe.toml")
        recipe = Recipe.load(tmp_path / "recipe.toml")
        assert recipe == result.recipe
        assert not recipe.searches
        if result.precisions is not None:
            same(compress(digits_model, calibration, recipe=recipe).model, result.model)
    assert "steps" not in results[0].recipe.to_toml(), "versions that know no lists read it"


def test_what_stands_in_the_list_is_not_done_twice(digits_model: Model, calibration: Dataset, labelled: Dataset) -> None:
    def compressed(*entries: str | dict[str, Any]) -> CompressionResult:
        return compress(digits_model, calibration, recipe=steps(*entries), search_data=labelled)

    implied = compressed({"step": "prune", "ratio": 0.3}, {"step": "quantize", "min_snr": 5.0})
    choosing = {"step": "choose_precisions", "min_snr": 5.0}
    written = compressed({"step": "prune", "ratio": 0.3}, "repair", choosing, "quantize")
    same(implied.model, written.model)
    assert [step.name for step in written.steps] == [step.name for step in implied.steps]
    plain = compressed({"step": "quantize", "observer": "percentile", "observer_options": {"percentile": 99.0}})
    found = compressed({"step": "calibrate", "observer": "percentile", "observer_options": {"percentile": 99.0}}, "quantize")
    assert plain.ranges.items() <= found.ranges.items()
    for name, value in get_params(plain.model.module).items():
        np.testing.assert_array_equal(value, get_params(found.model.module)[name])
    early = compressed({"step": "repair", "method": "equalize"}, "calibrate", "quantize")
    same(early.model, compressed({"step": "quantize", "repair": ["equalize"]}).model)


def test_iterative_pruning(digits_model: Model, digits: Path, labelled: Dataset) -> None:
    once = {"step": "prune", "ratio": 0.3}
    calibration = load_data(digits / "digits_calib.npz", digits_model.inputs, limit=128)
    result = compress(digits_model, calibration, recipe=steps(once, "repair", once, "repair", "quantize"))
    done = [step.name for step in result.steps]
    assert done == ["prune", "repair", "prune", "repair", "calibrate", "quantize", "lower"]
    assert result.surgery is not None
    names = [group.name for group in result.surgery.groups]
    assert len(names) > len(set(names)), "groups are pruned again"
    assert result.surgery.macs_before == count_macs(digits_model.module)
    assert result.surgery.macs_after == count_macs(result.float_model.module)
    first, second = (step.message for step in result.steps if step.name == "prune")
    assert first.split(" multiply")[0].split(" to ")[1] == second.split(" to ")[0]
    bare = {**once, "reconstruct": False}
    unrepaired = compress(digits_model, calibration, recipe=steps(bare, bare))

    def error(model: Model) -> float:
        images = labelled.inputs()[0]
        return float(np.square(model.run(images)[0] - digits_model.run(images)[0]).mean())

    assert error(result.float_model) < 0.3 * error(unrepaired.model)


def test_budgets_are_of_the_original(digits_model: Model, calibration: Dataset) -> None:
    halves = [{"step": "prune", "target_macs": share, "reconstruct": False} for share in (0.7, 0.4)]
    result = compress(digits_model, calibration, recipe=steps(*halves))
    assert 0.38 <= count_macs(result.model.module) / count_macs(digits_model.module) <= 0.4
    with pytest.raises(UserError, match="within the budget already"):
        compress(digits_model, calibration, recipe=steps(*halves, {"step": "prune", "target_macs": 0.5}))


def test_sparse_weights_stay_sparse_when_channels_go(digits_model: Model, calibration: Dataset) -> None:
    result = compress(digits_model, calibration, recipe=steps({"step": "sparsify", "pattern": "2:4"}, "prune", "quantize"))
    assert result.surgery is not None
    shares = [float((~mask).mean()) for mask in get_masks(result.float_model.module).values()]
    assert len(shares) > 3
    assert min(shares) > 0.3


class TestRefusals:
    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            (["dequantize"], "'dequantize' stands behind 'quantize'"),
            (["quantize", "prune"], "'prune' works on a float model, so it cannot stand behind 'quantize'; put that last"),
            (["quantize", "quantize"], "'calibrate' works on a float model"),
            (["repair", "prune"], "nothing is to be repaired before the first step"),
            (["prune", {"step": "repair", "method": "gptq"}], "'gptq' repairs quantized models"),
            (["prune", {"step": "repair", "method": "hope"}], "there is no repair 'hope'"),
            (["prune", {"step": "repair", "options": {"zeal": 1}}], "does not take the options zeal"),
            (["prne"], r"there is no step 'prne'; did you mean prune\?"),
            (["choose_precisions", "quantize"], "'choose_precisions' keeps to a limit"),
            ([{"step": "choose_precisions", "max_drop": 1.0}], "put that behind it"),
            (
                [{"step": "choose_precisions", "max_drop": 1.0}, {"step": "quantize", "rounding": "single"}],
                "rounding says nothing in 'quantize' behind 'choose_precisions'",
            ),
            (["calibrate", {"step": "quantize", "observer": "minmax"}], "observer says nothing behind the step 'calibrate'"),
            (["calibrate", {"step": "quantize", "repair": ["smooth"]}], "'smooth' comes before ranges are found"),
        ],
    )
    def test_lists_that_make_no_sense(self, entries: list[Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            planned(steps(*entries))

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"steps": [{"step": "prune", "ratio": 2}]}, "steps.0: prune.ratio: input should be less than 1, not 2"),
            ({"steps": [{"step": "quantize", "colour": 2}]}, "steps.0: quantize.colour is unknown"),
            ({"steps": [{"ratio": 0.5}]}, "steps.0.step: field required"),
            (
                {"steps": [{"step": "calibrate", "layers": {"a": {"precision": "int8"}}}]},
                "precision says nothing of how ranges",
            ),
            (
                {"steps": [{"step": "prune"}], "quantize": {}},
                r"the list \[\[steps\]\] takes the place of the table \[quantize\]",
            ),
        ],
    )
    def test_recipes(self, table: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            Recipe.of(table)
        assert "\n" not in str(caught.value)

    def test_a_table_beside_a_list(self, digits_model: Model) -> None:
        with pytest.raises(UserError, match="takes the place of the table"):
            compress(digits_model, recipe=steps("prune"), quantize="int8")

    def test_all_that_is_missing_is_said_before_anything_runs(self, digits_model: Model) -> None:
        pytest.importorskip("torch")
        told: list[Any] = []
        recipe = steps("prune", "finetune", {"step": "quantize", "max_drop": 1.0})
        with pytest.raises(UserError) as caught:
            compress(digits_model, recipe=recipe, on_progress=lambda *at: told.append(at))
        assert str(caught.value) == (
            "fine-tuning needs samples to learn from; give them (--train-data train.npz); "
            "quantization needs calibration data; give samples of what the model will see (--calib data.npz); "
            "choosing precisions needs samples that are not calibrated on; give some (--search-data or --eval)"
        )
        assert not told

    @pytest.mark.parametrize("entry", [{"step": "prune", "blocks": 1}, {"step": "prune", "importance": "taylor"}])
    def test_pruning_that_looks_at_samples(self, entry: dict[str, Any], digits_model: Model) -> None:
        with pytest.raises(UserError, match="pruning needs calibration data"):
            compress(digits_model, recipe=steps(entry))

    def test_pytorch(self, monkeypatch: pytest.MonkeyPatch, digits_model: Model, calibration: Dataset) -> None:
        monkeypatch.setitem(__import__("sys").modules, "torch", None)
        with pytest.raises(MissingToolError, match="PyTorch"):
            compress(digits_model, calibration, recipe=steps("prune", "finetune"), train_data=calibration)


class ClipOptions(Table):
    limit: float = 1.0


class Clip(Step[ClipOptions]):
    """Limits the weights."""

    name, Options = "clip", ClipOptions
    reads = frozenset()

    def run(self, state: State, context: Context) -> State:
        with context.progress.step("clip") as describe:
            limit = self.options.limit
            params = {name: np.clip(value, -limit, limit) for name, value in state.model.params.items()}
            describe(f"weights within {limit:g}")
        return state.with_model(state.model.with_params(params))


@pytest.fixture
def own_step() -> Iterator[None]:
    STEPS["clip"] = Clip
    yield
    del STEPS._entries["clip"]


def test_a_step_of_ones_own(own_step: None, digits_model: Model, calibration: Dataset, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('[[steps]]\nstep = "clip"\nlimit = 0.25\n[[steps]]\nstep = "quantize"\n')
    result = compress(digits_model, calibration, recipe=tmp_path / "r.toml")
    assert [step.name for step in result.steps] == ["clip", "calibrate", "quantize", "lower"]
    assert max(float(np.abs(value).max()) for value in result.float_model.params.values()) == 0.25
    assert Recipe.of(result.recipe.model_dump(exclude_none=True)) == result.recipe
    with pytest.raises(UserError, match=r"steps.1.size is unknown"):
        compress(digits_model, calibration, recipe=steps("prune", {"step": "clip", "size": 3}))
    with pytest.raises(UserError, match="cannot stand behind 'quantize'"):
        compress(digits_model, calibration, recipe=steps("quantize", "clip"))


def test_a_pass_as_a_step(digits_model: Model, calibration: Dataset) -> None:
    entry = {"step": "pass", "name": "EqualizeLayers", "options": {"iterations": 3}}
    result = compress(digits_model, calibration, recipe=steps(entry, "quantize"))
    assert [step.name for step in result.steps] == ["EqualizeLayers", "calibrate", "quantize", "lower"]
    expected = digits_model.apply(EqualizeLayers(iterations=3), note="pass EqualizeLayers")
    same(result.float_model, expected)
    assert Recipe.of(result.recipe.model_dump(exclude_none=True)) == result.recipe


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"name": "EqualiseLayers"}, "there is no pass 'EqualiseLayers'; did you mean EqualizeLayers"),
        ({"name": "EqualizeLayers", "options": {"rounds": 3}}, "the pass 'EqualizeLayers' cannot be made with the options"),
        ({}, "pass.name"),
    ],
)
def test_passes_that_cannot_be_applied(entry: dict[str, Any], sentence: str, digits_model: Model) -> None:
    with pytest.raises(UserError, match=sentence):
        compress(digits_model, recipe=steps({"step": "pass", **entry}))


def test_a_pass_does_not_quantize(digits_model: Model) -> None:
    quantized = compress(digits_model, np.zeros((4, *digits_model.inputs[0].shape[1:]), np.float32), quantize="int8")
    assert quantized.qdq_model is not None
    with pytest.raises(UserError, match="gives integer operators; make it the step 'quantize'"):
        ApplyPass(PassRecipe(name="LowerQDQ")).run(State.of(quantized.qdq_model), Context())
