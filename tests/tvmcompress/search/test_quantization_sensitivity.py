"""Sensitivity to quantization: what is measured is what quantizing does, and it can be interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, UserError, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.passes import LowerQDQ, Quantize, calibrate
from tvmcompress.passes.quantization.plan import plan_quantization
from tvmcompress.passes.quantization.units import quantization_units
from tvmcompress.search.quantization_sensitivity import QuantizationSensitivity, measure_quantization_sensitivity


@pytest.fixture(scope="module")
def calibration(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_calib.npz", digits_model.inputs, limit=30)


@pytest.fixture(scope="module")
def samples(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_test.npz", digits_model.inputs, limit=40)


@pytest.fixture(scope="module")
def measured(calibration: Dataset, samples: Dataset, digits_model: Model) -> QuantizationSensitivity:
    return measure_quantization_sensitivity(digits_model, calibration, samples)


def test_each_layer_alone_and_left_out(
    measured: QuantizationSensitivity, calibration: Dataset, samples: Dataset, digits_model: Model
) -> None:
    units = quantization_units(digits_model.module)
    assert [layer.name for layer in measured.layers] == [unit.name for unit in units]
    names = {var.name for var in plan_quantization(digits_model.module).points}
    ranges = calibrate(digits_model.module, [calibration.inputs()], "mse", tensors=names)
    (image,) = samples.inputs()
    wanted = digits_model.run(image)[0]

    def error(*excluded: str) -> float:
        got = digits_model.apply(Quantize(ranges, exclude=excluded), LowerQDQ()).run(image)[0]
        return float(np.square(got - wanted, dtype=np.float64).sum() / np.square(wanted, dtype=np.float64).sum())

    assert measured.whole.error == pytest.approx(error(), rel=1e-4)
    for unit, layer in list(zip(units, measured.layers))[::3]:
        others = [pattern for other in units if other is not unit for pattern in other.patterns]
        assert layer.alone.error == pytest.approx(error(*others), rel=1e-4)
        assert layer.without.error == pytest.approx(error(*unit.patterns), rel=1e-4)
    assert measured.most_sensitive()[0].alone.error == max(layer.alone.error for layer in measured.layers)
    assert measured.original.accuracy == (wanted.argmax(1) == samples.labels).mean()


def test_it_goes_on_where_it_stopped(
    measured: QuantizationSensitivity, calibration: Dataset, samples: Dataset, digits_model: Model, tmp_path: Path
) -> None:
    place = tmp_path / "sensitivity.json"

    def stop(done: int, total: int, layer: str) -> None:
        assert total == len(measured.layers)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_quantization_sensitivity(digits_model, calibration, samples, save=place, on_progress=stop)
    content = json.loads(place.read_text())
    assert len(content["layers"]) == 2
    # What was measured is not measured again: a changed number comes through.
    content["layers"][0]["alone"]["error"] = 123.0
    place.write_text(json.dumps(content))
    again = measure_quantization_sensitivity(digits_model, calibration, samples, save=place)
    assert again.layers[0].alone.error == 123.0
    assert again.layers[1:] == measured.layers[1:]
    assert QuantizationSensitivity.load(place) == again
    place.write_text("{}")
    with pytest.raises(UserError, match="holds no sensitivity to quantization"):
        QuantizationSensitivity.load(place)


def test_the_command(digits: Path, tmp_path: Path) -> None:
    options = ("--quantize", "int8", "--limit", 20, "--no-plot", "-o", tmp_path / "s")
    ran = run("sensitivity", digits / "digits.onnx", digits / "digits_test.npz", *options)
    assert ran.code == 0, ran.err
    assert "without it" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100
    found = json.loads((tmp_path / "s" / "sensitivity.json").read_text())
    assert found["samples"] == 20
    assert "stem" in ran.out


def test_options_that_do_not_fit(digits: Path, tmp_path: Path) -> None:
    start = ("sensitivity", digits / "digits.onnx", digits / "digits_test.npz", "--no-plot", "-o", tmp_path / "s")
    assert "--ratios says nothing with --quantize" in refused(*start, "--quantize", "int8", "--ratios", "0.5")
    assert "--calib says nothing without --quantize" in refused(*start, "--calib", digits / "digits_calib.npz")
    assert "calibrated on" in refused(*start, "--quantize", "int8", "--calib", digits / "digits_test.npz", "--limit", 600)
    assert "precision" in refused(*start, "--quantize", "int3")
