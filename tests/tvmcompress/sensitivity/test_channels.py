"""Sensitivity: what is measured is what pruning does, it can be interrupted, and it steers the allocation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, UserError, compress, load_data
from tvmcompress.compression import CompressionResult
from tvmcompress.data.dataset import Dataset
from tvmcompress.passes import Group, PruneChannels, get_params, groups
from tvmcompress.passes.pruning.importance import get_criterion
from tvmcompress.sensitivity.channels import Sensitivity, measure_sensitivity


@pytest.fixture(scope="module")
def samples(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_test.npz", digits_model.inputs, limit=60)


@pytest.fixture(scope="module")
def measured(samples: Dataset, digits_model: Model) -> Sensitivity:
    return measure_sensitivity(digits_model, samples, importance="l2", ratios=(0.25, 0.5))


def test_a_point_is_the_group_pruned_alone(measured: Sensitivity, samples: Dataset, digits_model: Model) -> None:
    assert [group.name for group in measured.groups] == ["stem", "res1", "pw1", "pw2"]
    params = get_params(digits_model.module)
    for measurement in measured.groups:
        name = measurement.name
        (group,) = (group for group in groups(digits_model.module) if group.name == name)
        norms = np.sort(get_criterion("l2")(group, params))  # type: ignore[operator]
        for point in measurement.points:
            assert point.removed == round(point.ratio * group.size)

            def importance(other: Group, values: Mapping[str, np.ndarray], name: str = name) -> np.ndarray:
                scores = get_criterion("l2")(other, values)  # type: ignore[operator]
                return np.asarray(scores) if other.name == name else np.full(other.size, 1e9)

            pruned = digits_model.apply(PruneChannels(threshold=norms[point.removed], importance=importance))
            (image,) = samples.inputs()
            wanted, got = digits_model.run(image)[0], pruned.run(image)[0]
            assert point.error == pytest.approx(np.square(got - wanted).sum() / np.square(wanted).sum(), rel=1e-4)
            assert point.accuracy == pytest.approx((got.argmax(1) == samples.labels).mean())


def test_it_goes_on_where_it_stopped(
    measured: Sensitivity, samples: Dataset, digits_model: Model, tmp_path: Path
) -> None:
    place = tmp_path / "sensitivity.json"

    def stop(done: int, total: int, group: str) -> None:
        assert total == 8
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(
            digits_model, samples, importance="l2", ratios=(0.25, 0.5), save=place, on_progress=stop
        )
    # What was measured is not measured again: a changed number comes through.
    content = json.loads(place.read_text())
    assert sum(len(group["points"]) for group in content["groups"]) == 3
    content["groups"][0]["points"][0]["error"] = 123.0
    place.write_text(json.dumps(content))
    again = measure_sensitivity(digits_model, samples, importance="l2", ratios=(0.25, 0.5), save=place)
    assert again.groups[0].points[0].error == 123.0
    assert again.groups[1:] == measured.groups[1:]
    assert Sensitivity.load(place) == again
    # Other samples: nothing of it counts.
    fresh = measure_sensitivity(digits_model, samples.first(20), importance="l2", ratios=(0.25,), save=place)
    assert fresh.groups[0].points[0].error != 123.0


def test_it_steers_the_allocation(measured: Sensitivity, digits: Path, digits_model: Model, tmp_path: Path) -> None:
    measured.save(tmp_path / "s.json")
    options = {"target_params": 0.5, "reconstruct": False}
    plain = compress(digits_model, digits / "digits_calib.npz", prune={**options, "importance": "l2"})
    steered = compress(
        digits_model, digits / "digits_calib.npz", prune={**options, "sensitivity": str(tmp_path / "s.json")}
    )
    assert plain.surgery is not None
    assert steered.surgery is not None

    def lost(result: CompressionResult, name: str) -> int:
        assert result.surgery is not None
        return sum(len(group.removed) for group in result.surgery.groups if group.name == name)

    # The first layer is by far the most sensitive.
    assert lost(steered, "stem") < lost(plain, "stem")
    assert 0.48 <= steered.surgery.params_after / steered.surgery.params_before <= 0.5


def test_bad_input(samples: Dataset, digits_model: Model, tmp_path: Path, digits: Path) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        measure_sensitivity(digits_model, samples, ratios=(0.5, 1.0))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="holds no sensitivity"):
        Sensitivity.load(tmp_path / "other.json")
    network, data = digits / "digits.onnx", digits / "digits_test.npz"
    assert "--ratios a,b" in refused("sensitivity", network, data, "--ratios", "a,b", "-o", tmp_path / "s")
    assert "none.json cannot be read" in refused(
        "compress", network, "--prune", 0.5, "--sensitivity", tmp_path / "none.json", "-o", tmp_path / "out"
    )


def test_command(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = run(
        "sensitivity", digits / "digits.onnx", digits / "digits_test.npz", "--limit", 40, "--ratios", "0.5",
        "-o", tmp_path / "s",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "stem" in ran.out
    assert (tmp_path / "s" / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    ran = run(
        "sensitivity", digits / "digits.onnx", digits / "digits_test.npz", "--limit", 40, "--ratios", "0.5",
        "-o", tmp_path / "s", "--no-plot", "--json",
    )  # fmt: skip
    assert json.loads(ran.out) == json.loads((tmp_path / "s" / "sensitivity.json").read_text())
