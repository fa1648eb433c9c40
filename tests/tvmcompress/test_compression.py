"""Compression of the digits example from end to end: what it costs in accuracy, what it saves, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import tvmcompress
from tvmcompress import Model, UserError, compress, evaluate
from tvmcompress.compression import CompressionResult, is_quantized
from tvmcompress.importing import from_onnx
from tvmcompress.passes import get_params
from tvmcompress.passes.graph.rebuild import bindings


@pytest.fixture(scope="module")
def both(digits: Path, digits_model: Model) -> CompressionResult:
    """Pruned and quantized."""
    return compress(digits_model, digits / "digits_calib.npz", prune=0.5, quantize="int8")


def accuracy(model: Model, digits: Path) -> float:
    found = evaluate(model, digits / "digits_test.npz").accuracy
    assert found is not None
    return found


def test_int8_costs_less_than_a_percent(digits: Path, digits_model: Model) -> None:
    result = compress(digits_model, digits / "digits_calib.npz", quantize="int8")
    assert abs(accuracy(result.model, digits) - accuracy(digits_model, digits)) <= 0.01
    assert result.surgery is None
    assert result.float_model is digits_model
    assert is_quantized(result.model)
    assert not is_quantized(digits_model)
    assert {value.dtype.name for name, value in result.model.params.items() if name.endswith("weight")} == {"int8"}


def test_repair_is_what_makes_pruning_usable(digits: Path, digits_model: Model) -> None:
    broken = compress(digits_model, digits / "digits_calib.npz", prune={"ratio": 0.5, "reconstruct": False})
    repaired = compress(digits_model, digits / "digits_calib.npz", prune=0.5)
    assert broken.surgery is not None
    assert repaired.surgery is not None
    assert broken.surgery.groups == repaired.surgery.groups
    assert accuracy(broken.model, digits) < 0.5
    assert accuracy(repaired.model, digits) >= 0.965


def test_both_together(both: CompressionResult, digits: Path) -> None:
    assert accuracy(both.model, digits) >= 0.96
    assert both.surgery is not None
    assert both.surgery.macs_before / both.surgery.macs_after > 3.5
    assert [step.name for step in both.steps] == ["prune", "repair", "calibrate", "quantize", "lower"]
    assert all(step.seconds >= 0 and step.message for step in both.steps)
    assert any(remark.subject == "classifier" for remark in both.remarks)
    assert len(both.model.provenance) == 5


def test_the_original_is_left_alone(both: CompressionResult, digits: Path) -> None:
    fresh = tvmcompress.load(digits / "digits.onnx")
    for name, value in fresh.params.items():
        np.testing.assert_array_equal(both.original.params[name], value)


def test_same_again(both: CompressionResult, digits: Path) -> None:
    again = compress(digits / "digits.onnx", digits / "digits_calib.npz", recipe=both.recipe)
    for name, value in get_params(both.model.module).items():
        np.testing.assert_array_equal(again.model.params[name], value)


def test_saved_and_loaded_it_computes_the_same(both: CompressionResult, digits: Path, tmp_path: Path) -> None:
    both.model.save(tmp_path / "model.tvmc")
    images = np.load(digits / "digits_test.npz")["x_uint8"][:20].astype(np.float32)
    again = tvmcompress.load(tmp_path / "model.tvmc")
    np.testing.assert_array_equal(again.run(images)[0], both.model.run(images)[0])
    noise = tvmcompress.layer_noise(both.original, again, digits / "digits_test.npz", samples=8)
    assert len(noise) >= 10, "surgery and scales travel with the file"


def test_progress_is_reported(digits: Path, digits_model: Model) -> None:
    seen: list[tuple[str, int, int]] = []
    compress(digits_model, digits / "digits_calib.npz", prune=0.5, quantize="int8", calibration_samples=40,
             on_progress=lambda *at: seen.append(at))  # fmt: skip
    assert list(dict.fromkeys(name for name, _, _ in seen)) == ["prune", "repair", "calibrate", "quantize", "lower"]
    assert all(0 <= done <= total for _, done, total in seen)
    assert ("calibrate", 40, 40) in seen


def test_layers_that_stay_in_float(digits: Path, digits_model: Model) -> None:
    result = compress(
        digits_model, digits / "digits_calib.npz", quantize={"exclude": ["classifier*"]}, calibration_samples=64
    )
    params = result.model.params
    assert params["classifier.weight"].dtype == np.float32
    assert params["pw2.weight"].dtype == np.int8


def test_other_choices_in_some_layers(digits: Path, digits_model: Model) -> None:
    options = {
        "power_of_two": True,
        "layers": {
            "res*": {"weights": "per_tensor"},
            "stem": {"observer": "percentile", "observer_options": {"percentile": 90}},
        },
    }
    plain = compress(digits_model, digits / "digits_calib.npz", quantize="int8")
    chosen = compress(digits_model, digits / "digits_calib.npz", quantize=options)
    changed = {name for name, found in chosen.ranges.items() if found != plain.ranges[name]}
    assert changed
    assert all(name == "stem" or name.startswith("stem.") for name in changed)
    assert chosen.qdq_model is not None
    sizes = {}
    for var, value in bindings(chosen.qdq_model.module["main"]):
        if "dequantize" in str(getattr(getattr(value, "op", None), "name", "")):
            scale = value.args[1].value.numpy()
            sizes[var.name] = scale.size
            assert (np.frexp(scale)[0] == 0.5).all()
    assert sizes["res1.weight.dequantized"] == sizes["res2.weight.dequantized"] == 1
    assert sizes["pw1.weight.dequantized"] == 64
    assert accuracy(chosen.model, digits) > 0.95


def test_repairs_are_steps_of_their_own(digits: Path, digits_model: Model) -> None:
    seen: list[tuple[str, int, int]] = []
    options = {"weights": "per_tensor", "repair": ["equalize", "bias"], "repair_options": {"equalize": {"iterations": 5}}}
    result = compress(digits_model, digits / "digits_calib.npz", quantize=options, on_progress=lambda *at: seen.append(at))
    assert [step.name for step in result.steps] == ["equalize", "calibrate", "quantize", "bias", "lower"]
    assert all(step.message for step in result.steps)
    assert ("bias", 3, 8) in seen
    plain = compress(digits_model, digits / "digits_calib.npz", quantize={**options, "repair": [], "repair_options": {}})
    assert any("equalized" in note for note in result.model.provenance)

    def error(model: Model) -> float:
        images = np.load(digits / "digits_test.npz")["x_uint8"][:200].astype(np.float32)
        return float(np.square(model.run(images)[0] - digits_model.run(images)[0]).mean())

    assert error(result.model) < 0.7 * error(plain.model)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"repair": ["prayer"]}, "there is no repair 'prayer'; choose one of equalize"),
            ({"repair_options": {"prayer": {}}}, "there is no repair 'prayer'"),
            ({"repair": ["bias"], "repair_options": {"bias": {"zeal": 1}}}, "does not take the options zeal"),
        ],
    )
    def test_repairs(self, options: dict, message: str, digits: Path, digits_model: Model) -> None:
        with pytest.raises(UserError, match=message):
            compress(digits_model, digits / "digits_calib.npz", quantize=options, calibration_samples=20)

    def test_quantized_already(self, both: CompressionResult, digits: Path) -> None:
        for model in (both.model, both.qdq_model):
            assert model is not None
            with pytest.raises(UserError, match="quantized already"):
                compress(model, digits / "digits_calib.npz", quantize="int8")

    def test_nothing_to_do(self, digits_model: Model) -> None:
        with pytest.raises(UserError, match="nothing to do"):
            compress(digits_model)

    @pytest.mark.parametrize(
        ("options", "cause"),
        [
            ({"ratio": 0.001}, "not one channel.*larger ratio"),
            ({"ratio": 0.5, "round_to": 4096}, "multiples of 4096"),
            ({"ratio": 0.5, "min_channels": 4096}, "at least 4096"),
            ({"ratio": 0.5, "exclude": ["*"]}, "exclude less"),
            ({"threshold": 1e-12}, "none scores below"),
        ],
    )
    def test_why_nothing_is_pruned(self, digits_model: Model, options: dict[str, Any], cause: str) -> None:
        with pytest.raises(UserError, match=f"no channel could be removed: .*{cause}"):
            compress(digits_model, prune=options)

    def test_why_nothing_can_be_pruned(self) -> None:
        text = '<ir_version: 8, opset_import: ["" : 17]> f (float[1,3] x) => (float[1,4] y) { y = MatMul (x, w) }'
        proto = onnx.parser.parse_model(text.replace("{", "<float[3,4] w> {", 1))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "w"))
        with pytest.raises(UserError, match="all groups of channels stay.*the model returns it"):
            compress(from_onnx(proto), prune=0.5)

    def test_no_data(self, digits_model: Model) -> None:
        with pytest.raises(UserError, match="calibration data"):
            compress(digits_model, quantize="int8")
