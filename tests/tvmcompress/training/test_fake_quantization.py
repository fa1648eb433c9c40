"""Training under quantization: it computes what the quantized model computes, learns by LSQ's gradients, and keeps its form."""

# Without PyTorch there is nothing to test here.
# ruff: noqa: E402
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, Recipe, UserError, compress, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.measuring.building import build
from tvmcompress.passes import LowerQDQ, get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.graph.view import GraphView
from tvmcompress.passes.pruning.sparsify import get_masks
from tvmcompress.passes.quantization.few_bits import clip_of_bits
from tvmcompress.passes.quantization.kinds import op_name
from tvmcompress.passes.quantization.quantized_layers import quantized_layers
from tvmcompress.steps.plan import planned
from tvmcompress.training.fake_quantization import FakeQuantizedModel, train_quantized

OPTIONS: dict[str, dict[str, Any]] = {
    "int8": {},
    "uint8": {"precision": "uint8"},
    "per tensor": {"weights": "per_tensor", "repair": []},
    "int16x8": {"precision": "int16x8"},
    "int4": {"precision": "int4", "repair": []},
    "groups of int4": {"precision": "int4", "group_size": 8, "repair": ["gptq"]},
    "4 bits": {"precision": "int4", "activation_bits": 4, "repair": []},
    "3 bits of uint8": {"precision": "uint8", "activation_bits": 3, "repair": []},
}


@pytest.fixture(scope="module")
def calibration(digits: Path, digits_model: Model) -> Dataset:
    return load_data(digits / "digits_calib.npz", digits_model.inputs, limit=60)


@pytest.fixture(scope="module")
def quantized(digits_model: Model, calibration: Dataset) -> dict[str, Model]:
    found = {}
    for name, options in OPTIONS.items():
        model = compress(digits_model, calibration, quantize=options).qdq_model
        assert model is not None
        found[name] = model
    return found


def scales(model: Model) -> list[tuple[str, float]]:
    """Scales of activations by variable."""
    calls = [(var.name, value) for var, value in bindings(model.module["main"]) if isinstance(value, relax.Call)]
    return [(name, float(call.args[1].value.numpy())) for name, call in calls if call.op.name == "relax.quantize"]


# In few bits the other side of a half is far, see below for those.
@pytest.mark.parametrize("name", [name for name in OPTIONS if "bits" not in name])
def test_it_computes_what_the_quantized_model_computes(
    quantized: dict[str, Model], digits_model: Model, calibration: Dataset, name: str
) -> None:
    model = quantized[name]
    network = FakeQuantizedModel(model, digits_model.params)
    inputs = calibration.read(0, 24)
    with torch.no_grad():
        (found,) = (value.numpy() for value in network(*(torch.from_numpy(value) for value in inputs)))
    (expected,) = model.run(*inputs)
    step = scales(model)[-1][1]
    # Sums are taken in another order, so that a few values fall on the other side of a half.
    assert np.abs(found - expected).max() <= 2.01 * step
    assert np.abs(found - expected).mean() < 0.5 * step


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("bits", [4, 8])
def test_where_sums_are_exact_it_computes_the_same_bits(
    digits_model: Model, calibration: Dataset, precision: str, bits: int
) -> None:
    """With scales that are powers of two, products and sums are whole numbers of steps."""
    options = {"precision": precision, "activation_bits": bits, "power_of_two": True, "repair": []}
    model = compress(digits_model, calibration, quantize=options).qdq_model
    assert model is not None
    inputs = calibration.read(0, 24)
    for weights in ({}, digits_model.params):
        network = FakeQuantizedModel(model, weights)
        with torch.no_grad():
            (found,) = (value.numpy() for value in network(*(torch.from_numpy(value) for value in inputs)))
        np.testing.assert_array_equal(found, model.run(*inputs)[0])


def test_clips_go_with_the_steps_that_are_learned(digits_model: Model, quantized: dict[str, Model]) -> None:
    model = quantized["4 bits"]
    network = FakeQuantizedModel(model, digits_model.params)
    for steps in network._steps.values():
        if steps.learned:
            network.tensors[steps.name].data *= 1.25
    changed = network.trained(model)
    before, after = (
        {
            var.name: found[1]
            for var, call in GraphView(made.module).values.items()
            if op_name(call) == "relax.quantize" and (found := clip_of_bits(GraphView(made.module), call)) is not None
        }
        for made in (model, changed)
    )
    assert before
    assert {name: (affine.bits, affine.zero_point) for name, affine in before.items()} == {
        name: (affine.bits, affine.zero_point) for name, affine in after.items()
    }
    for name, affine in before.items():
        assert after[name].scale == pytest.approx(1.25 * affine.scale, rel=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_untrained_it_is_the_model(quantized: dict[str, Model], digits_model: Model, name: str) -> None:
    model = quantized[name]
    same = FakeQuantizedModel(model, digits_model.params).trained(model)
    assert scales(same) == scales(model)
    assert same.params.keys() == model.params.keys()
    for param, value in model.params.items():
        np.testing.assert_array_equal(same.params[param], value, err_msg=param)


def test_small_steps_do_not_undo_a_repair(digits_model: Model, calibration: Dataset) -> None:
    qdq = compress(digits_model, calibration, quantize={"precision": "int4", "repair": ["gptq"]}).qdq_model
    assert qdq is not None
    network, moved = FakeQuantizedModel(qdq, digits_model.params), 0
    for layer in network._layers:
        grid = layer.weight
        own = network.tensors[grid.parameter.name].detach().numpy().transpose(grid.order) / grid.steps
        given = digits_model.params[grid.parameter.name].transpose(grid.order) / grid.steps
        elsewhere = np.abs(given - grid.integers) > 0.51
        moved += int(elsewhere.sum())
        # They may go either way; the others stand where the float model has them.
        np.testing.assert_allclose(own[elsewhere], np.broadcast_to(grid.integers, own.shape)[elsewhere], atol=1e-5)
        inside = np.abs(given - grid.integers) < 0.49
        np.testing.assert_allclose(own[inside], given[inside], atol=1e-5)
    assert moved > 20
    # A training whose steps are next to nothing gives back what it was given.
    same = train_quantized(
        qdq, calibration, original=digits_model, teacher=digits_model, epochs=1, learning_rate=1e-7, validation=0.5, seed=1
    )
    changed = sum(int((same.params[name] != value).sum()) for name, value in qdq.params.items())
    assert changed <= 0.002 * sum(value.size for value in qdq.params.values())


def test_biases_are_rounded_as_they_are_stored(digits_model: Model, quantized: dict[str, Model]) -> None:
    model = quantized["4 bits"]
    network = FakeQuantizedModel(model, digits_model.params)
    with torch.no_grad():
        for steps in network._steps.values():
            network.tensors[steps.name] *= 1.25 if steps.learned else 1.0
    stored = quantized_layers(network.trained(model).module)[0].values()
    biases = {layer.bias.parameter.name: layer.bias.real() for layer in stored if layer.bias is not None}
    assert len(biases) > 2
    for layer in network._layers:
        if layer.bias is not None:
            found = network._rounded(layer.bias).detach().numpy()
            np.testing.assert_allclose(found, biases[layer.bias.parameter.name], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_step_is_that_of_lsq(quantized: dict[str, Model], digits_model: Model) -> None:
    """Equation 3 of the paper, and its scale of gradients."""
    network = FakeQuantizedModel(quantized["int8"], digits_model.params)
    steps = next(steps for steps in network._steps.values() if steps.learned)
    low, high = steps.limits()
    size = steps.key[0]
    value = torch.tensor([0.3, 7.49, low - 2.0, high + 5.0, -1e-3, 40.2]) * size
    network._quantized(value, steps).sum().backward()
    ratio = value.numpy() / size
    each = np.where(ratio <= low, low, np.where(ratio >= high, high, np.rint(ratio) - ratio))
    expected = each.sum() / np.sqrt(value.numel() * high)
    assert float(network.tensors[steps.name].grad) == pytest.approx(float(expected), rel=1e-3)


def test_training_learns_integers_and_scales_and_keeps_the_form(
    quantized: dict[str, Model], digits_model: Model, digits: Path, calibration: Dataset
) -> None:
    model = quantized["int4"]
    data = replace(load_data(digits / "digits_test.npz", digits_model.inputs, limit=200), labels=None)
    options = {"epochs": 4, "learning_rate": 0.01, "batch_size": 20}
    tuned = train_quantized(model, data, original=digits_model, teacher=digits_model, **options)
    before, after = dict(scales(model)), dict(scales(tuned))
    assert before.keys() == after.keys()
    assert before["image.quantized"] == after["image.quantized"]  # the input's scale is the user's
    assert any(before[name] != after[name] for name in before)
    # What only moves values has the scale of what it moves.
    assert after["pw2.reshape.quantized"] == after["pw2.mean.quantized"]
    assert not np.array_equal(model.params["res1.weight"], tuned.params["res1.weight"])
    assert {name: value.dtype for name, value in tuned.params.items()} == {n: v.dtype for n, v in model.params.items()}
    lowered = tuned.apply(LowerQDQ())
    assert [remark for remark in get_remarks(lowered.module) if remark.pass_name == "LowerQDQ"] == []
    rows = data.read(0, 200)
    teacher = digits_model.run(*rows)[0]

    def error(found: Model) -> float:
        return float(np.square(found.run(*rows)[0] - teacher).mean())

    assert error(lowered) < 0.7 * error(model)


def test_what_was_made_sparse_stays_so(digits_model: Model, calibration: Dataset) -> None:
    result = compress(digits_model, calibration, recipe=Recipe.of({"sparsify": {"sparsity": 0.5}, "quantize": {}}))
    model = result.qdq_model
    assert model is not None
    masks = get_masks(model.module)
    assert masks
    tuned = train_quantized(model, calibration, original=result.float_model, teacher=digits_model, epochs=1, learning_rate=0.05)
    for name, mask in masks.items():
        assert not tuned.params[name][~mask].any()


def test_as_a_step(digits_model: Model, calibration: Dataset, tmp_path: Path) -> None:
    recipe = Recipe.of({"prune": {"ratio": 0.5}, "quantize": {}, "qat": {"epochs": 1, "distill": True}})
    assert [step.name for step in planned(recipe)] == ["prune", "repair", "calibrate", "quantize", "qat"]
    assert Recipe.of(recipe.model_dump(exclude_none=True)) == recipe
    result = compress(digits_model, calibration, recipe=recipe, train_data=calibration, checkpoint=tmp_path / "kept")
    assert any("1 epochs on" in note for note in result.model.provenance)
    assert (tmp_path / "kept" / "qat").is_dir()
    assert result.qdq_model is not None
    inputs = calibration.read(0, 8)
    expected = result.model.run(*inputs)[0]
    np.testing.assert_array_equal(result.qdq_model.apply(LowerQDQ()).run(*inputs)[0], expected)
    # The same bytes on a target.
    np.testing.assert_array_equal(build(result.model, "x86", tmp_path / "x86").run_float(inputs)[0], expected)


def test_where_it_makes_no_sense(digits_model: Model, calibration: Dataset, digits: Path) -> None:
    with pytest.raises(UserError, match="'qat' trains under quantization and stands behind it"):
        planned(Recipe.of({"qat": {"epochs": 1}}))
    with pytest.raises(UserError, match="needs a model in QDQ form"):
        train_quantized(digits_model, calibration, epochs=1)
    files = [str(digits / "digits.onnx"), "--calib", str(digits / "digits_calib.npz")]
    assert "'qat' trains under quantization" in refused("compress", *files, "--prune", 0.5, "--qat", 1)
    assert "training under quantization needs samples" in refused("compress", *files, "--quantize", "int8", "--qat", 1)


def test_options_of_training_are_those_of_both(digits: Path, tmp_path: Path) -> None:
    data = str(digits / "digits_calib.npz")
    options = ["--calib-samples", 40, "--quantize", "int8", "--qat", 1, "--distill", "--learning-rate", 0.004]
    run(
        "compress", digits / "digits.onnx", "--calib", data, "--train-data", data, *options, "-o", tmp_path / "out", "--no-onnx"
    )
    recipe = Recipe.load(tmp_path / "out" / "recipe.toml")
    assert recipe.qat is not None
    assert (recipe.qat.epochs, recipe.qat.distill, recipe.qat.learning_rate) == (1, True, 0.004)
    assert recipe.finetune is None
    assert "with training" in (tmp_path / "out" / "report.html").read_text()
