"""Benchmarks: what is built is compared before it is measured, and what cannot be built is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvmcompress
from tvmcompress import MissingToolError, Model, Recipe, UserError
from tvmcompress.measuring import benchmarking
from tvmcompress.targets.base import Artifact, Target, TensorSpec
from tvmcompress.targets.measurement import Measurement
from tvmcompress.targets.registry import get_target


class _Wrong(Artifact):
    """An artifact that computes something else by `error`."""

    def __init__(self, model: Model, error: float) -> None:
        self.model, self.error = model, error
        self.target = get_target("x86").description
        self.path = Path()
        self.inputs, self.outputs = (), ()

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        raise AssertionError("only float runs are used here")

    def run_float(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [output + self.error for output in self.model.run(*inputs)]

    def measure(self, inputs: Sequence[np.ndarray] | None = None, **options: Any) -> Measurement:
        return Measurement(target="x86", source="hardware")


def test_a_wrong_build_is_not_measured(digits_model: Model) -> None:
    inputs = benchmarking.random_samples(digits_model, 4)
    assert benchmarking.check(digits_model, _Wrong(digits_model, 1e-6), inputs, "it") == pytest.approx(1e-6, rel=0.5)
    with pytest.raises(UserError, match="computes something else"):
        benchmarking.check(digits_model, _Wrong(digits_model, 0.5), inputs, "it")
    with pytest.raises(UserError, match="computes something else"):
        benchmarking.check(digits_model, _Wrong(digits_model, float("nan")), inputs, "it")


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_a_wrong_integer_build_is_not_measured(kind: str, digits_model: Model) -> None:
    """Its bytes must be equal: one step of one output, far within what a float build may be off by, is one too many."""
    inputs = benchmarking.random_samples(digits_model, 2)
    quantized = {} if kind == "float32" else {"scale": 2.0**-12, "zero_point": 0}
    built = _Wrong(digits_model, 2.0**-12)
    built.outputs = (TensorSpec(name="output", shape=(1, 10), dtype=kind, **quantized),)
    if kind == "float32":
        assert benchmarking.check(digits_model, built, inputs, "it") == pytest.approx(2.0**-12, rel=0.01)
        return
    with pytest.raises(UserError, match="it computes something else than the model"):
        benchmarking.check(digits_model, built, inputs, "it")
    built.error = 0.0
    assert benchmarking.check(digits_model, built, inputs, "it") == 0.0


def test_names_of_models_and_targets_are_no_paths(digits_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def build(model: Model, target: str, folder: Path, **options: Any) -> Artifact:
        places.append(str(folder.relative_to(tmp_path)))
        raise UserError("not today")

    monkeypatch.setattr(benchmarking, "build", build)
    names = ["..", "../x", "pruned + int8", "report.json", "a b", "a-b", "/etc/passwd"]
    benchmarking.benchmark(dict.fromkeys(names, digits_model), ["x86"], output=tmp_path)
    assert places == ["unnamed/x86", "x/x86", "pruned-int8/x86", "report.json-2/x86", "a-b/x86", "a-b-2/x86", "etc-passwd/x86"]
    text = (Path(benchmarking.get_target.__code__.co_filename).parent / "descriptions" / "x86.toml").read_text()
    (tmp_path / "..toml").write_text(text.replace('name = "x86"', 'name = "mine"'))
    benchmarking.benchmark({"one": digits_model}, [str(tmp_path / "..toml")], output=tmp_path)
    assert places[-1] == "mine"
    (tmp_path / "..toml").write_text(text)
    with pytest.raises(UserError, match="describe targets of the same name, x86"):
        benchmarking.benchmark({"one": digits_model}, ["x86", str(tmp_path / "..toml")], output=tmp_path)


def test_ablation_is_each_step_alone_and_together(digits: Path, digits_model: Model) -> None:
    data = tvmcompress.load_data(digits / "digits_calib.npz", digits_model.inputs, limit=40)
    recipe = Recipe.of({"prune": {"ratio": 0.25}, "quantize": {}})
    found = benchmarking.ablation(digits_model, data, recipe)
    assert list(found) == ["pruned", "int8", "pruned + int8"]
    assert [result.surgery is not None for result in found.values()] == [True, False, True]
    assert [bool(result.ranges) for result in found.values()] == [False, True, True]
    assert list(benchmarking.ablation(digits_model, data, Recipe.of({"quantize": {}}))) == ["int8"]


def test_missing_tools(digits_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(get_target("cortex-m4"))
    monkeypatch.setattr(kind, "missing_tools", lambda self: ["A thing is missing; run: apt-get install thing."])
    assert issubclass(kind, Target)
    with pytest.raises(MissingToolError, match="apt-get install thing"):
        benchmarking.benchmark({"digits": digits_model}, ["cortex-m4"])
    (record,) = benchmarking.benchmark({"digits": digits_model}, ["cortex-m4"], skip_missing=True)
    assert record.measurement is None
    assert record.problem is not None
    assert "apt-get install thing" in record.problem


@pytest.mark.parametrize("target", ["x86", "cortex-a72", "cortex-m4"])
def test_integer_builds_are_equal_byte_for_byte(target: str, digits: Path, digits_model: Model, tmp_path: Path) -> None:
    """The same integer model on every target: the bytes are the interpreter's, so they are each other's."""
    if get_target(target).missing_tools():
        pytest.skip(f"the tools of {target} are not installed")
    result = tvmcompress.compress(
        digits_model, digits / "digits_calib.npz", prune=0.5, quantize="int8", calibration_samples=64
    )
    artifact = tvmcompress.build(result.model, target, tmp_path)
    images = tvmcompress.load_data(digits / "digits_test.npz", digits_model.inputs, limit=12).inputs()
    np.testing.assert_array_equal(artifact.run_float(images)[0], result.model.run(*images)[0])
    measured = artifact.measure()
    assert (measured.latency is not None) == (target == "x86")
    assert (measured.instructions is not None) == (target != "x86")
    assert measured.flash_bytes is not None
    assert measured.flash_bytes > result.model.params["res1.weight"].nbytes


def test_a_model_in_qdq_form_is_built_as_integers(digits: Path, digits_model: Model, tmp_path: Path) -> None:
    result = tvmcompress.compress(digits_model, digits / "digits_calib.npz", quantize="int8", calibration_samples=64)
    assert result.qdq_model is not None
    artifact = tvmcompress.build(result.qdq_model, "x86", tmp_path)
    assert artifact.inputs[0].dtype == "int8"
    images = tvmcompress.load_data(digits / "digits_test.npz", digits_model.inputs, limit=8).inputs()
    np.testing.assert_array_equal(artifact.run_float(images)[0], result.model.run(*images)[0])


def test_random_samples_are_the_same_again(digits_model: Model) -> None:
    first, second = (benchmarking.random_samples(digits_model, 3) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[0].shape == (3, 1, 8, 8)


def test_unknown_target(digits_model: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cortex-m4"):
        tvmcompress.build(digits_model, "cortex-m44", tmp_path)


def test_folder_that_cannot_be_written(digits_model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        tvmcompress.build(digits_model, "x86", tmp_path / "file" / "out")
