"""Samples that training holds back are unseen by whatever comes before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tvmcompress import Model, Recipe, UserError, compress, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.recipe.recipe import FinetuneRecipe
from tvmcompress.steps import calibrate, quantize
from tvmcompress.steps import repair as steps_repair
from tvmcompress.training.finetuning import Training
from tvmcompress.training.held_back import learned_and_held, unjudged

SAMPLES = 40


@pytest.fixture(scope="module")
def samples(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_calib.npz", digits_model.inputs, limit=SAMPLES)


def rows(data: Dataset) -> set[bytes]:
    return {row.tobytes() for row in data.inputs()[0]}


@pytest.mark.parametrize("validation", [0.1, 0.3])
def test_what_judges_the_epochs_is_not_seen_by_calibration_and_repair(
    samples: Dataset, digits_model: Model, monkeypatch: pytest.MonkeyPatch, validation: float
) -> None:
    seen: dict[str, set[bytes]] = {"ranges": set(), "repair": set(), "judge": set()}
    find, mend, score = calibrate.find_ranges, quantize.repair_integers, Training._score

    def ranges(model: Model, data: Dataset, *rest: Any) -> Any:
        seen["ranges"] |= rows(data)
        return find(model, data, *rest)

    def repair(qdq: Model, reference: Model, data: Dataset, *rest: Any) -> Model:
        seen["repair"] |= rows(data)
        return mend(qdq, reference, data, *rest)

    def judge(training: Any) -> Any:
        seen["judge"] |= {row.tobytes() for row in training._data.pick(training._held)[0]}
        return score(training)

    monkeypatch.setattr(calibrate, "find_ranges", ranges)
    monkeypatch.setattr(quantize, "repair_integers", repair)
    monkeypatch.setattr(Training, "_score", judge)
    recipe: dict[str, Any] = {"quantize": {"precision": "int4"}, "qat": {"epochs": 1, "validation": validation}}
    # Other objects of the same content.
    compress(digits_model, samples.inputs()[0].copy(), recipe=Recipe.of(recipe), train_data=samples)
    assert len(seen["judge"]) == round(SAMPLES * validation)
    assert seen["ranges"] == seen["repair"] == rows(samples) - seen["judge"]
    # Without training nothing is held back.
    seen["repair"] = set()
    compress(digits_model, samples, quantize=recipe["quantize"])
    assert seen["repair"] == rows(samples)


@pytest.mark.parametrize(
    ("recipe", "held"),
    [
        ({"prune": {"ratio": 0.25}, "finetune": {"epochs": 1, "validation": 0.3}}, round(SAMPLES * 0.3)),
        ({"steps": [{"step": "prune_iteratively", "target_macs": 0.8, "rounds": 2, "epochs": 1}]}, round(SAMPLES * 0.1)),
        ({"steps": [{"step": "prune_iteratively", "target_macs": 0.8, "rounds": 2}]}, 0),
    ],
)
def test_what_judges_the_epochs_is_not_seen_by_the_repair_of_what_pruning_has_left(
    samples: Dataset, digits_model: Model, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], held: int
) -> None:
    seen: dict[str, set[bytes]] = {"repair": set(), "judge": set()}
    solve, score = steps_repair.solve_weights, Training._score

    def repair(model: Model, original: Model, data: Dataset, *rest: Any, **options: Any) -> Model:
        seen["repair"] |= rows(data)
        return solve(model, original, data, *rest, **options)

    def judge(training: Any) -> Any:
        seen["judge"] |= {row.tobytes() for row in training._data.pick(training._held)[0]}
        return score(training)

    monkeypatch.setattr(steps_repair, "solve_weights", repair)
    monkeypatch.setattr(Training, "_score", judge)
    compress(digits_model, samples.inputs()[0].copy(), recipe=Recipe.of(recipe), train_data=samples)
    assert len(seen["judge"]) == held
    assert seen["repair"] == rows(samples) - seen["judge"]


def test_samples_that_judge_nothing_stay(samples: Dataset) -> None:
    recipe = FinetuneRecipe(validation=0.5, seed=3)
    learned, held = learned_and_held(samples, recipe)
    assert sorted([*learned, *held]) == list(range(SAMPLES))
    assert len(held) == SAMPLES // 2
    first, second = samples.between(0, 10), samples.between(10, SAMPLES)
    # Training learns from others: calibration keeps what it was given, in its order.
    assert unjudged(first, second, recipe) is first
    kept = unjudged(first, samples, recipe).inputs()[0]
    np.testing.assert_array_equal(kept, first.inputs()[0][sorted(set(range(10)) - set(held))])


def test_calibration_is_left_with_something(samples: Dataset) -> None:
    one = samples.first(1)
    recipe = next(r for seed in range(20) if 0 in learned_and_held(samples, r := FinetuneRecipe(validation=0.5, seed=seed))[1])
    assert unjudged(one, samples, recipe) is one
    with pytest.raises(UserError, match="at least two samples"):
        learned_and_held(one, recipe)
