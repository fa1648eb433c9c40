"""Results of steps that were kept: the same models again without the work, and never another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tvmcompress.steps.test_plan import same
from tvmcompress import Model, UserError, compress, load_data
from tvmcompress.compression import CompressionResult
from tvmcompress.data.dataset import Dataset
from tvmcompress.passes.errors import UserError as PassError
from tvmcompress.steps import cache
from tvmcompress.steps.quantize import QuantizeModel

PRUNED = {"ratio": 0.5}


@pytest.fixture(scope="module")
def calibration(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_calib.npz", digits_model.inputs, limit=16)


class Runs:
    """Compresses with a cache, and tells what was computed."""

    def __init__(self, model: Model, calibration: Dataset, folder: Path) -> None:
        self.model, self.calibration, self.folder = model, calibration, folder

    def __call__(self, data: Any = None, **options: Any) -> tuple[CompressionResult, list[str]]:
        told: list[str] = []
        options = {"cache": self.folder, "on_progress": lambda name, done, total: told.append(name), **options}
        result = compress(options.pop("model", self.model), self.calibration if data is None else data, **options)
        return result, list(dict.fromkeys(told))


@pytest.fixture
def runs(digits_model: Model, calibration: Dataset, tmp_path: Path) -> Runs:
    return Runs(digits_model, calibration, tmp_path / "cache")


def test_what_was_done_is_not_done_again(runs: Runs, digits_model: Model, calibration: Dataset) -> None:
    plain = compress(digits_model, calibration, prune=PRUNED, quantize="int8")
    first, told = runs(prune=PRUNED, quantize="int8")
    assert told == ["prune", "repair", "calibrate", "quantize", "lower"]
    again, told = runs(prune=PRUNED, quantize="int8")
    assert told == []
    # Other rounding: the ranges are those there are. Other precisions of layers, likewise.
    other, told = runs(prune=PRUNED, quantize={"rounding": "single"})
    assert told == ["quantize", "lower"]
    assert runs(prune=PRUNED, quantize="int4")[1] == ["quantize", "gptq", "lower"]
    for result in (first, again):
        for name in ("model", "float_model", "qdq_model"):
            same(getattr(plain, name), getattr(result, name))
        assert result.ranges == plain.ranges
        assert result.surgery == plain.surgery
        assert result.remarks == plain.remarks
        assert [(step.name, step.message) for step in result.steps] == [(step.name, step.message) for step in plain.steps]
    same(other.model, compress(digits_model, calibration, prune=PRUNED, quantize={"rounding": "single"}).model)
    assert all(step.seconds == 0 for step in again.steps)
    assert [step.seconds > 0 for step in other.steps] == [False, False, False, True, True]


def test_only_what_depends_on_a_change_is_done_again(runs: Runs, digits_model: Model, calibration: Dataset) -> None:
    runs(prune=PRUNED, quantize="int8")
    whole = ["prune", "repair", "calibrate", "quantize", "lower"]
    assert runs(calibration.first(12), prune=PRUNED, quantize="int8")[1] == whole
    params = digits_model.params
    changed = digits_model.with_params({"classifier.bias": params["classifier.bias"] + np.float32(1)})
    assert runs(model=changed, prune=PRUNED, quantize="int8")[1] == whole
    assert runs(prune={"ratio": 0.4}, quantize="int8")[1] == whole
    assert runs(prune=PRUNED, quantize={"observer": "minmax"})[1] == whole[2:]
    assert runs(prune=PRUNED, quantize={"exclude": ["stem"]})[1] == whole[2:]
    # What pruning is for decides in which numbers memory counts.
    assert runs(prune=PRUNED)[1] == whole[:2]
    # The target says to how many channels pruning keeps.
    assert runs(prune=PRUNED, quantize="int8", target="cortex-m4")[1] == whole


def test_a_search_is_kept_with_its_choice(runs: Runs, digits: Path, digits_model: Model) -> None:
    data = load_data(digits / "digits_test.npz", digits_model.inputs, limit=12)
    options = {"min_snr": 5.0}
    first, _ = runs(quantize=options, search_data=data)
    again, told = runs(quantize=options, search_data=data)
    assert told == []
    assert again.precisions == first.precisions
    assert again.recipe == first.recipe
    same(again.model, first.model)
    assert runs(quantize=options, search_data=data.first(10))[1][0] != "calibrate", "ranges do not depend on them"


def test_other_code_counts_as_another_step(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs(quantize="int8")
    monkeypatch.setattr(cache, "_code", lambda: "another version")
    assert runs(quantize="int8")[1] == ["calibrate", "quantize", "lower"]


def test_a_run_that_is_stopped_goes_on(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(QuantizeModel, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            runs(prune=PRUNED, quantize="int8")
    with monkeypatch.context() as patched:
        patched.setattr(Model, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            runs(prune=PRUNED, quantize="int8")
    assert all(len(place.name) == 32 for place in runs.folder.iterdir()), "nothing half-written stays"
    assert runs(prune=PRUNED, quantize="int8")[1] == ["quantize", "lower"]


def test_what_cannot_be_read_is_made_anew(runs: Runs, digits_model: Model, calibration: Dataset) -> None:
    plain = compress(digits_model, calibration, prune=PRUNED)
    for damage in (b"", b"{}", b"{"):
        runs(prune=PRUNED)
        for place in runs.folder.iterdir():
            (place / "state.json").write_bytes(damage)
        result, told = runs(prune=PRUNED)
        assert told == ["prune", "repair"]
        same(result.model, plain.model)
    for place in runs.folder.iterdir():
        (place / "model.tvmc").write_bytes((place / "model.tvmc").read_bytes()[:-200])
    same(runs(prune=PRUNED)[0].model, plain.model)


def test_it_stays_small(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs.folder / "mine").mkdir(parents=True)
    (runs.folder / "mine" / "large").write_bytes(bytes(1 << 20))
    runs(prune=PRUNED)
    assert len(list(runs.folder.iterdir())) == 3
    monkeypatch.setattr(cache, "LIMIT", 1)
    result, _ = runs(prune={"ratio": 0.4})
    assert result.surgery is not None
    assert [place.name for place in runs.folder.iterdir()] == ["mine"], "what is not ours is left alone"


def test_folders_that_cannot_be_written(runs: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the cache .* cannot be made"):
        runs(prune=PRUNED, cache=tmp_path / "file" / "cache")

    def full(*_: Any) -> None:
        raise PassError("the disk is full")

    monkeypatch.setattr(Model, "save", full)
    with pytest.warns(UserWarning, match="cannot be kept in the cache: the disk is full"):
        assert runs(prune=PRUNED)[0].surgery is not None
