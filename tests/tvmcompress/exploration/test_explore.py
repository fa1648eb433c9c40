"""Searches: points are tried no further than they are worth, limits hold, and what is known is never lost."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from tvmcompress import LimitError, Model, Recipe, UserError, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.exploration import attempt
from tvmcompress.exploration.attempt import Attempts, Samples
from tvmcompress.exploration.explore import STUDY, explore, require_front, starting_points
from tvmcompress.exploration.goal import Goal
from tvmcompress.exploration.record import SearchPoint
from tvmcompress.exploration.space import Point
from tvmcompress.measuring.record import BuildRecord
from tvmcompress.passes.graph.analysis import count_macs
from tvmcompress.targets.measurement import Measurement


@pytest.fixture(scope="module")
def samples(digits: Path, digits_model: Model) -> Samples:
    calibration = load_data(digits / "digits_calib.npz", digits_model.inputs, limit=16)
    return Samples(calibration, None, load_data(digits / "digits_test.npz", digits_model.inputs, limit=100))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Builds take no time: an instruction for each multiply-accumulate, a byte for each parameter; their targets are listed."""
    built: list[str] = []

    def benchmark(models: dict[str, Model], targets: list[str], **options: Any) -> list[BuildRecord]:
        built.append(targets[0])
        ((name, model),) = models.items()
        macs = count_macs(model.module)
        figures = Measurement(target=targets[0], source="qemu", instructions=macs, flash_bytes=macs // 10, ram_bytes=7000)
        return [BuildRecord(model=name, target=targets[0], measurement=figures)]

    monkeypatch.setattr(attempt, "benchmark", benchmark)
    return built


def recipe(**tables: Any) -> Point:
    return Point(Recipe.of({"quantize": {}, **tables}), {})


def test_a_point_goes_no_further_than_it_is_worth(
    digits_model: Model, samples: Samples, counted: list[str], tmp_path: Path
) -> None:
    def tried(point: Point, goal: Goal) -> SearchPoint:
        return Attempts(digits_model, samples, goal, tmp_path).try_point(3, point)

    good = tried(recipe(), Goal("cortex-m4", max_drop=3))
    assert (good.stage, good.feasible, good.number, good.reason) == ("measured", True, 3, None)
    assert good.cost == good.macs == count_macs(digits_model.module)
    assert counted == ["cortex-m4"]
    hopeless = tried(recipe(prune={"target_macs": 0.03, "reconstruct": False}), Goal("cortex-m4", max_drop=3))
    assert (hopeless.stage, hopeless.feasible) == ("few samples", False)
    assert "on 64 samples it loses" in (hopeless.reason or "")
    worse = tried(recipe(prune={"target_macs": 0.3}), Goal("cortex-m4", max_drop=0))
    assert worse.stage == "samples"
    assert (worse.lost or 0) > 0
    heavy = tried(recipe(), Goal("cortex-m4", max_flash=2000))
    assert (heavy.stage, heavy.lost) == ("bounds", None)
    assert "its weights take" in (heavy.reason or "")
    assert len(counted) == 1
    large = tried(recipe(), Goal("cortex-m4", max_ram=6999, max_drop=3))
    assert (large.stage, large.feasible) == ("measured", False)
    assert large.reason == "it takes RAM 7,000 bytes, which is more than allowed"


def test_a_point_that_cannot_be_made_is_recorded(digits_model: Model, samples: Samples, tmp_path: Path) -> None:
    attempts = Attempts(digits_model, samples, Goal("cortex-m4"), tmp_path)
    found = attempts.try_point(0, recipe(prune={"target_macs": 0.001, "min_channels": 8}))
    assert (found.stage, found.feasible) == ("bounds", False)
    assert found.reason


def test_a_search_goes_on_where_it_was(digits_model: Model, samples: Samples, counted: list[str], tmp_path: Path) -> None:
    goal = Goal("cortex-m4", max_drop=4)
    first = explore(Attempts(digits_model, samples, goal, tmp_path), trials=3)
    assert [point.words for point in first.points] == [
        "int8",
        "int8, spend flash 65536",
        "90% of the MACs, output_energy, int8, spend flash 65536",
    ]
    assert first.unit == "instructions"
    second = explore(Attempts(digits_model, samples, goal, tmp_path), trials=2)
    assert second.points[:3] == first.points
    assert len(second.points) == 5
    best = [second.point(number) for number in second.front]
    assert all(point.feasible for point in best)
    assert [point.cost for point in best] == sorted(point.cost or 0 for point in best)
    assert best[0].cost == min(point.cost for point in second.points if point.feasible)
    with pytest.raises(UserError, match="is of another search"):
        explore(Attempts(digits_model, samples, Goal("cortex-m4", max_drop=5), tmp_path), trials=1)


def test_known_points_are_not_tried_again_and_neighbours_are(
    digits_model: Model, samples: Samples, counted: list[str], tmp_path: Path
) -> None:
    result = explore(Attempts(digits_model, samples, Goal("cortex-m4", max_drop=6), tmp_path), trials=12)
    made = {point.recipe.model_dump_json() + str(point.build) for point in result.points if point.stage == "measured"}
    assert len(counted) == len(made)
    later = [point.recipe.prune for point in result.points[8:] if point.recipe.prune is not None]
    assert any(table.ratios for table in later)


def test_an_interrupt_keeps_what_is_known(digits_model: Model, samples: Samples, counted: list[str], tmp_path: Path) -> None:
    def stop(point: SearchPoint, now: object) -> None:
        if point.number == 1:
            raise KeyboardInterrupt

    goal = Goal("cortex-m4", max_drop=4)
    result = explore(Attempts(digits_model, samples, goal, tmp_path), trials=5, on_point=stop)
    assert result.stopped == "interrupt"
    assert [point.number for point in result.points] == [0, 1]
    assert [point.number for point in explore(Attempts(digits_model, samples, goal, tmp_path), trials=1).points] == [0, 1, 2]


def test_what_a_killed_process_was_at_is_proposed_again(
    digits_model: Model, samples: Samples, counted: list[str], tmp_path: Path
) -> None:
    goal = Goal("cortex-m4", max_drop=4)
    explore(Attempts(digits_model, samples, goal, tmp_path), trials=1)
    kept = optuna.load_study(study_name="tvmcompress", storage=f"sqlite:///{tmp_path / STUDY}")
    kept.ask().set_user_attr("owner", [platform.node(), os.getpid(), 1.0])  # a process of this number, but another one
    result = explore(Attempts(digits_model, samples, goal, tmp_path), trials=5)
    shares = [point.recipe.prune.target_macs for point in result.points if point.recipe.prune is not None]
    assert sorted(shares) == [0.4, 0.5, 0.65, 0.8, 0.9]


def test_nothing_keeps_to_the_limits(digits_model: Model, samples: Samples, counted: list[str], tmp_path: Path) -> None:
    result = explore(Attempts(digits_model, samples, Goal("cortex-m4", max_ram=100, max_drop=4), tmp_path), trials=2)
    assert result.front == ()
    with pytest.raises(LimitError, match=r"none of 2 points keeps to the limits; nearest came '.*': it takes RAM 7,000 bytes"):
        require_front(result)


def test_a_search_has_an_end(digits_model: Model, samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a search needs an end"):
        explore(Attempts(digits_model, samples, Goal("cortex-m4"), tmp_path))
    with pytest.raises(UserError, match="the study cannot be kept in"):
        explore(
            Attempts(digits_model, samples, Goal("cortex-m4"), tmp_path),
            trials=1,
            storage=f"sqlite:///{tmp_path}/none/study.db",
        )


def test_points_to_begin_with(digits_model: Model, samples: Samples) -> None:
    points = starting_points(digits_model, samples, Goal("cortex-m4"), (2, 6))
    assert [point.recipe.finetune for point in points] == [None] * len(points)  # there is nothing to train on
    data: Dataset = samples.search
    trained = starting_points(digits_model, Samples(samples.calibration, data, data), Goal("cortex-m4"), (2, 6))
    assert {point.recipe.finetune.epochs for point in trained if point.recipe.finetune is not None} == {6}


_TWO = """
import sys
from pathlib import Path
from tests.tvmcompress.exploration import two_machines
two_machines.search(Path(sys.argv[1]), sys.argv[2])
"""


def test_two_processes_search_together(digits_model: Model, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'both.db'}"
    root = Path(__file__).resolve().parents[3]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(tmp_path / name), storage], cwd=root, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "other")
    ]
    found = [run.communicate(timeout=240)[0].split() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    numbers = sorted(int(number) for own in found for number in own)
    assert numbers == list(range(6))
