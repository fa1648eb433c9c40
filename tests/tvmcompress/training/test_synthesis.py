"""Samples made from the statistics of batch normalizations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress import Model, UserError, compress, load_data, synthesize
from tvmcompress.passes.graph.interpreter import Interpreter
from tvmcompress.passes.graph.normalization_statistics import get_statistics
from tvmcompress.training.synthesis import _noise, _normalized

from ..cli.running import refused
from ..cli.running import run as run_command

pytest.importorskip("torch")

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


@pytest.fixture(scope="module")
def digits() -> Model:
    return tvmcompress.load(EXAMPLES / "digits.onnx")


@pytest.fixture(scope="module")
def made(digits: Model) -> list[np.ndarray]:
    return synthesize(digits, 40, steps=60).inputs()


def _distance(model: Model, x: np.ndarray) -> float:
    """How far moments are from those recorded, in spreads of a layer: the median layer, by NumPy."""
    tensors: dict[str, np.ndarray] = {}
    Interpreter(model.module)([x], lambda name, value: tensors.update({name: value.copy()}))
    errors = []
    for name, (axis, moments) in _normalized(model).items():
        value = np.moveaxis(tensors[name], axis, -1).reshape(-1, moments.mean.size).astype(np.float64)
        error = np.square(value.mean(0) - moments.mean) + np.square(value.std(0) - moments.deviation)
        errors.append(np.sqrt(error.mean() / np.square(moments.deviation).mean()))
    return float(np.median(errors))


def test_layers_see_what_their_normalizations_saw(digits: Model, made: list[np.ndarray]) -> None:
    assert len(_normalized(digits)) == len(get_statistics(digits.module)) >= 5
    real = load_data(EXAMPLES / "digits_calib.npz", digits.inputs).first(40).inputs()[0]
    noise = np.random.default_rng(0).normal(real.mean(), real.std(), real.shape).astype(np.float32)
    assert made[0].shape == real.shape
    assert made[0].dtype == np.float32
    assert _distance(digits, made[0]) < 0.2 < 0.4 < _distance(digits, noise)


def test_what_is_calibrated_on_them_does_as_well(digits: Model, made: list[np.ndarray]) -> None:
    test = load_data(EXAMPLES / "digits_test.npz", digits.inputs)
    x = test.inputs()[0]
    plain = digits.run(x)[0]
    quantized = compress(digits, made[0], quantize="int8").model.run(x)[0]
    assert (quantized.argmax(1) == plain.argmax(1)).mean() > 0.99
    noise = np.square(quantized - plain).sum() / np.square(plain).sum()
    assert noise < 10**-2.5


def test_the_same_seed_gives_the_same_samples(digits: Model) -> None:
    one, other, third = (synthesize(digits, 3, steps=2, seed=seed).inputs()[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
    assert len(one) == 3


def test_progress_and_division_into_batches(digits: Model) -> None:
    seen: list[tuple[int, int]] = []
    found = synthesize(digits, 34, steps=2, on_progress=lambda *at: seen.append(at))
    assert len(found) == 34
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("shape", [(2, 1, 64), (1, 3, 32, 32), (4, 10)])
def test_noise_has_deviation_one_and_less_power_at_high_frequencies(shape: tuple[int, ...]) -> None:
    found = _noise(np.random.default_rng(0), shape)
    assert found.std() == pytest.approx(1.0, rel=1e-5)
    if len(shape) > 2:
        power = np.square(np.abs(np.fft.rfft(found, axis=-1))).reshape(-1, shape[-1] // 2 + 1).mean(0)
        assert power[1:5].sum() > 4 * power[-4:].sum()


def test_what_has_no_statistics_is_refused(model: Model) -> None:
    with pytest.raises(UserError, match="no statistics of batch normalizations"):
        synthesize(model, 4)


def test_inputs_that_are_no_numbers_are_refused(digits: Model) -> None:
    integers = replace(digits, inputs=(digits.inputs[0].model_copy(update={"dtype": "int32"}),))
    with pytest.raises(UserError, match="is int32, not float32"):
        synthesize(integers, 4)


@pytest.mark.parametrize("numbers", [(0, 5), (3, 0)])
def test_numbers_below_one_are_refused(digits: Model, numbers: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        synthesize(digits, numbers[0], steps=numbers[1])


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_command("compress", EXAMPLES / "digits.onnx", "--calib-synthetic", 2, "--quantize", "int8", "-o", out)
    assert (out / "model.tvmc").is_file()
    both = ("--calib", EXAMPLES / "digits_calib.npz", "--calib-synthetic", 8, "--quantize", "int8")
    assert "either --calib or --calib-synthetic" in refused("compress", EXAMPLES / "digits.onnx", *both)
