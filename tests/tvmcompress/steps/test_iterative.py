"""Pruning in rounds: what is left after each, back to the best, and on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress import Model, Recipe, UserError, compress, load_data
from tvmcompress.passes.graph.analysis import count_macs
from tvmcompress.passes.pruning.sparsify import get_masks
from tvmcompress.recipe.iterative import IterativeRecipe


def rounds(**options: Any) -> Recipe:
    return Recipe.of({"steps": [{"step": "prune_iteratively", **options}]})


@given(st.floats(0.05, 0.95), st.integers(1, 12), st.sampled_from(["geometric", "linear", "cubic"]))
def test_schedules_fall_to_the_budget(target: float, count: int, schedule: Any) -> None:
    recipe = IterativeRecipe(target_macs=target, rounds=count, schedule=schedule)
    left = [1.0, *(recipe.left(number) for number in range(1, count + 1))]
    assert left[-1] == pytest.approx(target)
    assert (np.diff(left) < 0).all()
    steps = -np.diff(left)
    if schedule == "geometric":
        np.testing.assert_allclose(np.divide(left[1:], left[:-1]), target ** (1 / count), rtol=1e-9)
    elif schedule == "linear":
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    else:
        assert (np.diff(steps) <= 1e-12).all()


@pytest.mark.parametrize("options", [{}, {"selection": "fold", "solve_blocks": True}])
def test_each_round_is_one_pruning_of_what_the_last_has_left(
    digits_model: Model, digits: Path, options: dict[str, Any]
) -> None:
    calibration = load_data(digits / "digits_calib.npz", digits_model.inputs, limit=32)
    made = compress(digits_model, calibration, recipe=rounds(target_macs=0.5, rounds=2, **options))
    by_hand = {"step": "prune", "reconstruct": True, **options}
    entries = [{**by_hand, "target_macs": share} for share in (0.5**0.5, 0.5)]
    expected = compress(digits_model, calibration, recipe=Recipe.of({"steps": entries}))
    assert made.model.params.keys() == expected.model.params.keys()
    for name, value in expected.model.params.items():
        np.testing.assert_array_equal(made.model.params[name], value)
    assert any("block by block" in step.message for step in made.steps) == ("solve_blocks" in options)
    assert [step.name for step in made.steps] == ["prune", "repair", "round 1 of 2", "prune", "repair", "round 2 of 2"]
    assert 0.45 < count_macs(made.model.module) / count_macs(digits_model.module) <= 0.5


def test_a_round_that_loses_too_much_is_taken_back(digits_model: Model, digits: Path) -> None:
    calibration = load_data(digits / "digits_calib.npz", digits_model.inputs, limit=32)
    test = load_data(digits / "digits_test.npz", digits_model.inputs, limit=100)
    recipe = rounds(target_macs=0.05, rounds=4, schedule="linear", max_drop=8.0)
    made = compress(digits_model, calibration, recipe=recipe, search_data=test)
    messages = [step.message for step in made.steps if step.name.startswith("round")]
    taken = next(index for index, message in enumerate(messages) if message.startswith("taken back"))
    assert 0 < taken == len(messages) - 1
    right = [(model.run(*test.inputs())[0].argmax(1) == test.labels).mean() for model in (digits_model, made.model)]
    assert 100 * (right[0] - right[1]) <= 8.0
    kept = count_macs(made.model.module) / count_macs(digits_model.module)
    assert IterativeRecipe(target_macs=0.05, schedule="linear").left(taken) == pytest.approx(kept, abs=0.05)
    with pytest.raises(UserError, match="the first of 1 rounds loses"):
        compress(digits_model, calibration, recipe=rounds(target_macs=0.05, rounds=1, max_drop=1.0), search_data=test)
    with pytest.raises(UserError, match="pruning in rounds needs samples that are not calibrated on"):
        compress(digits_model, calibration, recipe=recipe)


def test_a_stopped_run_goes_on_behind_its_last_round(digits_model: Model, digits: Path, tmp_path: Path) -> None:
    calibration = load_data(digits / "digits_calib.npz", digits_model.inputs, limit=32)
    recipe = rounds(sparsity=0.8, rounds=3, schedule="cubic")

    def stop(step: str, done: int, total: int) -> None:
        if step == "round 3 of 3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(digits_model, calibration, recipe=recipe, cache=tmp_path, on_progress=stop)
    seen: list[str] = []
    again = compress(
        digits_model, calibration, recipe=recipe, cache=tmp_path, on_progress=lambda step, done, total: seen.append(step)
    )
    assert "round 3 of 3" in seen
    assert "round 2 of 3" not in seen
    masks = get_masks(again.model.module).values()
    assert sum(int((~mask).sum()) for mask in masks) / sum(mask.size for mask in masks) == pytest.approx(0.8, abs=0.02)


def test_what_is_refused() -> None:
    for options, sentence in (
        ({}, "give target_macs or sparsity"),
        ({"target_macs": 0.5, "sparsity": 0.5}, "and one of them"),
        ({"sparsity": 0.5, "importance": "l2"}, "importance ranks channels"),
        ({"sparsity": 0.5, "selection": "fold"}, "selection says how channels leave"),
        ({"sparsity": 0.5, "solve_blocks": True}, "sparse layers are repaired one by one"),
        ({"target_macs": 0.5, "rounds": 0}, "rounds"),
    ):
        with pytest.raises(UserError, match=sentence):
            rounds(**options)
