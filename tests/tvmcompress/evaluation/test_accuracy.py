"""Evaluation: figures computed by hand, and what cannot be evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress import InputSpec, Model, UserError, evaluate, load_data

ort = pytest.importorskip("onnxruntime")

VECTOR = InputSpec(name="x", shape=(1, 4))


def identity(inputs: list[np.ndarray]) -> list[np.ndarray]:
    """A "model" whose output is its first three inputs."""
    return [inputs[0][:, :3]]


@pytest.fixture
def samples() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)


def test_accuracy_of_the_example_is_that_of_onnx_runtime(digits: Path, digits_model: Model) -> None:
    data = np.load(digits / "digits_test.npz")
    session = ort.InferenceSession(str(digits / "digits.onnx"))
    logits = [session.run(None, {"image": image[None].astype(np.float32)})[0] for image in data["x_uint8"]]
    right = int((np.concatenate(logits).argmax(1) == data["y"]).sum())
    found = evaluate(digits_model, digits / "digits_test.npz")
    assert (found.samples, found.correct) == (600, right)
    assert found.accuracy == right / 600
    assert found.accuracy >= 0.98


def test_figures_by_hand(samples: np.ndarray) -> None:
    labels = np.random.default_rng(1).integers(0, 3, len(samples))
    noise = np.random.default_rng(2).standard_normal((len(samples), 3)).astype(np.float32)
    taken = iter(np.split(noise, [64, 128]))

    def noisy(inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [identity(inputs)[0] + next(taken)]

    found = evaluate(noisy, load_data((samples, labels), [VECTOR]), reference=identity)
    output = samples[:, :3] + noise
    accuracy = float((output.argmax(1) == labels).mean())
    assert found.accuracy == pytest.approx(accuracy)
    assert found.reference_accuracy == pytest.approx(float((samples[:, :3].argmax(1) == labels).mean()))
    assert found.agreement == pytest.approx(float((output.argmax(1) == samples[:, :3].argmax(1)).mean()))
    assert found.relative_error == pytest.approx(np.linalg.norm(noise) / np.linalg.norm(samples[:, :3]), rel=1e-6)
    assert found.half_width == pytest.approx(1.96 * np.sqrt(accuracy * (1 - accuracy) / len(samples)))
    assert found.reconstruction_error is None


def test_autoencoder(samples: np.ndarray) -> None:
    found = evaluate(lambda x: [x[0] * 0.5], load_data(samples, [VECTOR]), reference=lambda x: [x[0] * 0.6])
    assert found.accuracy is None
    assert found.agreement is None
    assert found.reconstruction_error == pytest.approx(0.25 * float(np.square(samples).mean()), rel=1e-5)
    assert found.reference_reconstruction_error == pytest.approx(0.16 * float(np.square(samples).mean()), rel=1e-5)
    assert found.reconstruction_change == pytest.approx(0.25 / 0.16 - 1, rel=1e-5)


def test_reference_alone(samples: np.ndarray) -> None:
    labels = samples[:, :3].argmax(1)
    found = evaluate(lambda x: [-identity(x)[0]], load_data((samples, labels), [VECTOR]), reference=identity)
    assert found.of_reference().accuracy == 1.0
    assert found.of_reference().correct == len(samples)
    assert found.agreement == 0.0


def test_doubt_where_the_model_does_no_better_than_one_answer(samples: np.ndarray) -> None:
    best = samples[:, :3].argmax(1)
    wrong = np.where(best == 0, 1, 0)
    right = evaluate(identity, load_data((samples, best), [VECTOR]))
    assert right.most_frequent == np.bincount(best).max() / len(samples)
    assert right.doubt is None
    found = evaluate(identity, load_data((samples, wrong), [VECTOR]))
    assert found.most_frequent == (wrong == 0).mean()
    assert found.doubt is not None
    assert "the most frequent label" in found.doubt
    # A compressed model that has lost everything says nothing about the data.
    lost = evaluate(lambda inputs: [-identity(inputs)[0]], load_data((samples, best), [VECTOR]), reference=identity)
    assert lost.doubt is None


def test_limit_and_progress(samples: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    data = load_data((samples, np.zeros(len(samples))), [VECTOR])
    assert evaluate(identity, data, limit=100, on_progress=lambda *at: seen.append(at)).samples == 100
    assert seen == [(64, 100), (100, 100)]


class TestRefusals:
    def test_neither_labels_nor_reference(self, samples: np.ndarray) -> None:
        with pytest.raises(UserError, match="no labels and there is no model to compare with"):
            evaluate(identity, load_data(samples, [VECTOR]))

    @pytest.mark.parametrize(("label", "sentence"), [(-1, "negative"), (3, "3 classes")])
    def test_labels_that_are_no_class(self, label: int, sentence: str, samples: np.ndarray) -> None:
        labels = np.zeros(len(samples), int)
        labels[-1] = label
        with pytest.raises(UserError, match=sentence):
            evaluate(identity, load_data((samples, labels), [VECTOR]))

    def test_outputs_that_are_not_finite(self, samples: np.ndarray) -> None:
        with pytest.raises(UserError, match="NaN"):
            evaluate(lambda x: [identity(x)[0] * np.nan], load_data((samples, np.zeros(150)), [VECTOR]))

    def test_a_function_needs_a_dataset(self, samples: np.ndarray) -> None:
        with pytest.raises(UserError, match="load_data"):
            evaluate(identity, samples)


def test_noise_of_a_pruned_model_by_hand(digits: Path, digits_model: Model) -> None:
    """The channels that were kept are compared with the same channels of the original."""
    result = tvmcompress.compress(digits_model, prune={"ratio": 0.5, "reconstruct": False})
    data = load_data(digits / "digits_test.npz", digits_model.inputs, limit=16)
    found = {layer.name: layer for layer in tvmcompress.layer_noise(digits_model, result.model, data, samples=16)}
    assert result.surgery is not None
    tensors: list[dict[str, np.ndarray]] = []
    for model in (digits_model, result.model):
        values: dict[str, np.ndarray] = {}
        from tvmcompress.passes.graph.interpreter import run

        run(model.module, data.inputs(), lambda name, value, values=values: values.update({name: value.copy()}))
        tensors.append(values)
    for name, weight in (("res1", "res1.weight"), ("pw1", "pw1.weight"), ("pw2.clip", "pw2.weight")):
        kept = result.surgery.kept_positions()[(weight, 0)]
        original, pruned = tensors[0][name][:, kept], tensors[1][name]
        wanted = 10 * np.log10(np.square(original).sum() / np.square(pruned - original).sum())
        assert found[name].snr_db == pytest.approx(wanted, abs=1e-3)
        assert (found[name].channels, found[name].of_channels) == (len(kept), tensors[0][name].shape[1])
    assert found["classifier"].channels == found["classifier"].of_channels == 10


def test_noise_of_a_model_against_itself_is_none(digits: Path, digits_model: Model) -> None:
    noise = tvmcompress.layer_noise(digits_model, digits_model, digits / "digits_test.npz", samples=4)
    assert len(noise) == 26
    assert all(layer.snr_db == float("inf") for layer in noise)


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_noise_of_a_quantized_and_pruned_model(form: str, digits: Path, digits_model: Model) -> None:
    """Every layer is matched, and quantization to 8 bits alone leaves a signal of 25 dB or more above the noise."""
    data = digits / "digits_calib.npz"
    for prune in (None, 0.25):
        result = tvmcompress.compress(digits_model, data, prune=prune, quantize="int8", calibration_samples=100)
        model = result.qdq_model if form == "qdq" else result.model
        assert model is not None
        found = {layer.name: layer for layer in tvmcompress.layer_noise(result.original, model, data)}
        behind = {
            "stem.relu",
            "res1.relu",
            "res2.bias_add",
            "stem.relu_1",
            "dw1.clip",
            "pw1.clip",
            "dw2.clip",
            "pw2.clip",
        }
        assert behind | {"pw2.mean", "classifier.bias_add"} <= set(found)
        if prune is None:
            assert all(25 < layer.snr_db < 80 for layer in found.values()), found
        else:
            assert (found["pw1.clip"].channels, found["pw1.clip"].of_channels) == (48, 64)
            assert all(layer.snr_db > 1 for layer in found.values()), found


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_noise_of_an_equalized_model_is_in_the_scale_of_the_original(
    form: str, digits: Path, digits_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"repair": ["equalize"]}
    result = tvmcompress.compress(digits_model, digits / "digits_calib.npz", quantize=options, calibration_samples=100)
    model = result.qdq_model if form == "qdq" else result.model
    assert model is not None
    noise = tvmcompress.layer_noise(digits_model, model, digits / "digits_calib.npz")
    assert all(layer.snr_db > 20 for layer in noise)
    monkeypatch.setattr("tvmcompress.evaluation.noise.get_channel_scales", lambda mod: {})
    unscaled = tvmcompress.layer_noise(digits_model, model, digits / "digits_calib.npz")
    assert min(layer.snr_db for layer in unscaled) < 20
