"""The space of a search: whatever is drawn from it is a recipe that can be run, and what a target cannot use is not in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress import Model
from tvmcompress.exploration.goal import Goal
from tvmcompress.exploration.space import Space
from tvmcompress.steps.plan import planned
from tvmcompress.targets.registry import get_target


class Drawn:
    """Gives parameters what hypothesis draws."""

    def __init__(self, data: st.DataObject) -> None:
        self.data, self.params = data, {}  # type: ignore[var-annotated]

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.params[name] = self.data.draw(st.sampled_from(list(choices)), name)
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        drawn = (
            st.floats(low, high) if step is None else st.integers(0, round((high - low) / step)).map(lambda i: low + i * step)
        )
        self.params[name] = self.data.draw(drawn, name)
        return float(self.params[name])


def space(model: Model, target: str = "cortex-m4", goal: Goal | None = None, **options: Any) -> Space:
    return Space(model, get_target(target).description, goal or Goal(target), **options)


@pytest.fixture(scope="module")
def spaces(digits_model: Model) -> list[Space]:
    small = Goal("cortex-m4", "flash", max_ram=9999, max_flash=99999)
    return [
        space(digits_model, epochs=(2, 6)),
        space(digits_model, goal=small),
        space(digits_model, "x86"),
        space(digits_model, calibration=False),
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_drawn_can_be_run(spaces: list[Space], data: st.DataObject) -> None:
    point = data.draw(st.sampled_from(spaces)).point(Drawn(data))
    assert [step.name for step in planned(point.recipe)] or not point.recipe.entries()
    assert point.words()
    assert type(point.recipe).of(point.recipe.model_dump(exclude_none=True)) == point.recipe


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_neighbour_is_a_point_of_the_space(spaces: list[Space], data: st.DataObject) -> None:
    here = data.draw(st.sampled_from(spaces))
    drawn = Drawn(data)
    here.point(drawn)
    removed = {name: data.draw(st.floats(0, 0.95)) for name in here.groups[::2]}
    near = here.near(drawn.params, removed, np.random.default_rng(data.draw(st.integers(0, 9))))
    point = here.point(optuna.trial.FixedTrial(near))
    ratios = {} if point.recipe.prune is None else point.recipe.prune.ratios
    moved = [name for name in here.groups if abs(ratios.get(name, 0.0) - removed.get(name, 0.0)) > 0.05]
    assert len(moved) <= 2
    assert point.recipe.quantize == here.point(optuna.trial.FixedTrial(drawn.params)).recipe.quantize


def test_it_begins_with_the_model_as_it_is(spaces: list[Space]) -> None:
    for here in spaces:
        points = [here.point(optuna.trial.FixedTrial(start)) for start in here.starts()]
        assert points[0].recipe.prune is None
        assert points[0].build == {}
        assert len({point.key for point in points}) == len(points)
        shares = [point.recipe.prune.target_macs for point in points if point.recipe.prune is not None]
        assert shares[:6] == [0.9, 0.8, 0.65, 0.5, 0.4, 0.3]


def test_what_a_target_cannot_use_is_left_out(digits_model: Model) -> None:
    def names(here: Space) -> set[str]:
        asked: set[str] = set()

        class Asked:
            def suggest_categorical(self, name: str, choices: Any) -> Any:
                asked.add(name)
                return "layers" if name == "allocation" else choices[0]

            def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
                asked.add(name)
                return high

        here.point(Asked())
        return {name for name in asked if not name.startswith("ratio.")}

    always = {"allocation", "criterion", "precision", "observer", "quant_repair"}
    assert names(space(digits_model, "x86")) == always
    assert names(space(digits_model)) == always | {"spend_flash"}
    assert names(space(digits_model, "cortex-m55", Goal("cortex-m55", max_ram=9))) == always | {"patch_wise"}
    assert names(space(digits_model, goal=Goal("cortex-m4", "flash"))) == always | {"int4_share"}
    assert names(space(digits_model, epochs=(3,))) == always | {"spend_flash", "epochs"}
