"""Distillation without labels, and the parts of training that it brought: rates, averages, features, mixtures."""

# mypy: ignore-errors

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tvmcompress import compress, finetune
from tvmcompress.data.dataset import load_data
from tvmcompress.errors import UserError
from tvmcompress.importing.torch_export import from_exported
from tvmcompress.passes import PruneChannels, Reconstruct, get_surgery
from tvmcompress.training.augment import cut, mix
from tvmcompress.training.averaging import Average
from tvmcompress.training.bridge import TorchModel
from tvmcompress.training.features import Features
from tvmcompress.training.finetuning import Training
from tvmcompress.training.label_free import _defaults, learn_from_original
from tvmcompress.training.lesson import Lesson
from tvmcompress.training.rates import find_rate, scheduled

from ..cli.running import refused
from ..cli.running import run as run_command
from .test_finetuning import SPEC, recipe
from .test_gradient_criteria import by_hand


@pytest.fixture(scope="module")
def pruned_digits(digits_model, digits):
    train = load_data(digits / "digits_calib.npz", digits_model.inputs)
    pruned = digits_model.apply(PruneChannels(0.7, scope="global"))
    return pruned.apply(Reconstruct(digits_model.module, train.first(60).inputs())), train.first(100)


def agreement(model, original, data):
    x = data.inputs()
    return float((model.run(*x)[0].argmax(1) == original.run(*x)[0].argmax(1)).mean())


def test_it_comes_closer_to_the_original_on_samples_never_seen(pruned_digits, digits_model, digits):
    pruned, samples = pruned_digits
    test = load_data(digits / "digits_test.npz", digits_model.inputs)
    seen = []
    taught = learn_from_original(pruned, digits_model, samples, lambda *at: seen.append(at), epochs=40)
    before, after = (agreement(made, digits_model, test) for made in (pruned, taught))
    assert before < 0.9
    assert after > before + 0.2 * (1 - before)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert "distilled from the original: " in taught.provenance[-1]
    # Labels are not looked at.
    liar = replace(samples, labels=np.zeros_like(samples.labels))
    again = learn_from_original(pruned, digits_model, liar, epochs=40)
    for name, value in taught.params.items():
        np.testing.assert_array_equal(again.params[name], value)


def test_what_cannot_become_better_stays(digits_model, pruned_digits):
    kept = learn_from_original(digits_model, digits_model, pruned_digits[1], epochs=4)
    assert "does not pay" in kept.provenance[-1]
    for name, value in digits_model.params.items():
        np.testing.assert_array_equal(kept.params[name], value)
    wild = learn_from_original(pruned_digits[0], digits_model, pruned_digits[1], epochs=4, learning_rate=1e6)
    for name, value in pruned_digits[0].params.items():
        np.testing.assert_array_equal(wild.params[name], value)


def test_a_stopped_run_goes_on(pruned_digits, digits_model, tmp_path):
    pruned, samples = pruned_digits
    options = {"epochs": 8, "learning_rate": 0.01}
    steps = []
    whole = learn_from_original(pruned, digits_model, samples, lambda *at: steps.append(at), **options)
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if len(seen) > 0.9 * len(steps):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_from_original(pruned, digits_model, samples, stop, checkpoint=tmp_path / "run", **options)
    again = []
    resumed = learn_from_original(
        pruned, digits_model, samples, lambda *at: again.append(at), checkpoint=tmp_path / "run", **options
    )
    assert 0 < len(again) < 0.3 * len(steps)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(resumed.params[name], value)


def test_as_a_step(digits, tmp_path):
    command = ["compress", digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--prune", "0.6"]
    entries = ('step = "prune"\nratio = 0.6', 'step = "repair"\nmethod = "distill"\noptions = { epochs = 4, seed = 3 }')
    (tmp_path / "recipe.toml").write_text("".join(f"[[steps]]\n{entry}\n" for entry in entries))
    ran = run_command(*command, "--repair-distill", "--dry-run")
    assert ran.code == 0, ran.err
    assert "distill" in ran.out
    made = compress(digits / "digits.onnx", digits / "digits_calib.npz", recipe=tmp_path / "recipe.toml")
    assert [step.name for step in made.steps] == ["prune", "distill"]
    assert "epochs on" in made.steps[1].message
    (tmp_path / "recipe.toml").write_text('[[steps]]\nstep = "repair"\nmethod = "distill"\n')
    assert "before the first step" in refused(*command[:4], "--recipe", tmp_path / "recipe.toml", "-o", tmp_path / "o")
    with pytest.raises(UserError, match=r"repair\.options\.rate"):
        compress(
            digits / "digits.onnx",
            digits / "digits_calib.npz",
            recipe=_steps({"step": "repair", "method": "distill", "options": {"rate": 1}}),
        )
    with pytest.raises(UserError, match="at least 8 samples"):
        compress(
            digits / "digits.onnx", np.zeros((4, 1, 8, 8), "float32"), recipe=_steps({"step": "repair", "method": "distill"})
        )


def photographs(channels, layout="NCHW"):
    """A network of one convolution over images of 8 x 8."""
    layers = (torch.nn.Conv2d(channels, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 3))
    made = torch.export.export(torch.nn.Sequential(*layers).eval(), (torch.zeros(1, channels, 8, 8),))
    model = from_exported(made)
    return replace(model, inputs=(model.inputs[0].model_copy(update={"layout": layout}),))


@pytest.mark.parametrize(("channels", "layout", "changed"), [(3, "NCHW", True), (1, "NCHW", False), (3, "NHWC", False)])
@pytest.mark.parametrize("samples", [40, 600])
def test_photographs_are_flipped_and_shifted(channels, layout, changed, samples):
    model = photographs(channels, layout)
    found = _defaults(model, model, samples)
    assert found.get("augment") == (("flip", "crop") if changed else None)
    assert ("mixup" in found) == (samples == 40)
    assert found["batch_size"] == (8 if samples == 40 else 32)


def test_many_photographs_are_learned_from_for_the_whole_time():
    original = photographs(3)
    params = {name: value * np.float32(0.9) for name, value in original.params.items()}
    images = np.random.default_rng(0).normal(size=(500, 3, 8, 8)).astype(np.float32)
    model = original.with_params(params)
    taught = learn_from_original(model, original, load_data(images, model.inputs), epochs=20)
    assert "20 epochs on 500 samples" in taught.provenance[-1]
    taught = learn_from_original(model, original, load_data(images[:300], model.inputs), epochs=20)
    assert "of 20 (cross-validated: " in taught.provenance[-1]


def _steps(*entries):
    from tvmcompress import Recipe

    return Recipe.of({"steps": [{"step": "prune", "ratio": 0.5}, *entries]})


@given(st.integers(1, 400), st.floats(0, 0.9))
@settings(max_examples=50, deadline=None)
def test_rates_rise_to_one_and_fall_to_zero(total, warmup):
    rates = [scheduled(step, total, warmup) for step in range(total)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(1)
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 1e-12).all()
    assert min(rates) > 0


def test_the_rate_found_is_below_the_one_that_destroys(model, data):
    """A quadratic bowl of known curvature: gradient descent diverges beyond 2 / curvature."""
    training = Training(
        model, TorchModel(model.module), load_data(data, SPEC), None, recipe(optimizer="sgd", momentum=0.0, batch_size=36)
    )
    before = training.values()
    rate = find_rate(training)
    for name, value in training.values().items():
        assert torch.equal(value, before[name])
    assert 0 < rate <= 1 / 2
    kept = finetune(model, data, optimizer="sgd", momentum=0.0, learning_rate=rate, epochs=3)
    assert "learning rate" in kept.provenance[-1]


def test_the_average_is_that_of_the_formula():
    weights = {"w": torch.zeros(3)}
    average, expected = Average(weights, 1000), 0.0
    for step in range(1, 50):
        weights["w"].fill_(step)
        average.update()
        kept = min(0.99, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step
    np.testing.assert_allclose(average.values["w"].numpy(), expected, rtol=1e-5)


def test_features_are_those_of_the_channels_left(digits_model, digits):
    """A teacher with the removed channels zeroed gives in all others what the pruned network gives."""
    pruned = digits_model.apply(PruneChannels(0.5))
    params = {name: value.copy() for name, value in digits_model.params.items()}
    for group in get_surgery(pruned.module).groups:
        for member, positions in group.members.items():
            name, _, axis = member.rpartition(":")
            np.moveaxis(params[name], int(axis), 0)[positions] = 0
    zeroed = digits_model.with_params(params)
    x = load_data(digits / "digits_test.npz", digits_model.inputs).first(16).inputs()

    def told(model):
        features = Features(model, zeroed)
        networks = [TorchModel(made.module) for made in (model, zeroed)]
        for made in networks:
            made.tap(features.names)
            with torch.no_grad():
                made(*x)
        assert any(a.shape != b.shape for a, b in zip(*(made.tapped() for made in networks)))
        return float(features(*(made.tapped() for made in networks)))

    assert told(pruned) < 1e-9
    first = next(name for name, value in pruned.params.items() if value.ndim == 4)
    moved = told(pruned.with_params({first: pruned.params[first] * np.float32(1.1)}))
    assert 0.001 < moved < 0.1


def test_labels_are_smoothed_and_mixed(model, data):
    x, labels = data
    training = Training(
        model,
        TorchModel(model.module),
        load_data(data, SPEC),
        None,
        recipe(label_smoothing=0.2, mixup=0.7),
    )
    indices = np.arange(12)
    share = float(np.random.default_rng(3).beta(0.7, 0.7))
    found = float(training._lesson(indices, np.random.default_rng(3))[0].detach())
    params = {name: torch.tensor(value) for name, value in model.params.items()}
    mixed = torch.tensor(share * x[:12] + (1 - share) * x[:12][::-1]).float()
    out = by_hand(params, mixed)
    both = [
        functional.cross_entropy(out, torch.tensor(wanted.copy()), label_smoothing=0.2)
        for wanted in (labels[:12], labels[:12][::-1])
    ]
    assert found == pytest.approx(float(share * both[0] + (1 - share) * both[1]), rel=1e-4)
    assert torch.equal(mix([torch.arange(3)], 0.5)[0], torch.arange(3))


def test_labels_of_what_is_pasted_count_by_area(model, data):
    x, labels = data
    training = Training(model, TorchModel(model.module), load_data(data, SPEC), None, recipe(cutmix=1.0))
    indices, rng = np.arange(12), np.random.default_rng(3)
    found = float(training._lesson(indices, np.random.default_rng(3))[0].detach())
    assert rng.random() < 1.0  # whether this batch is cut at all
    images, share = cut([torch.from_numpy(x[:12])], rng)
    out = by_hand({name: torch.tensor(value) for name, value in model.params.items()}, images[0])
    one, other = (functional.cross_entropy(out, torch.tensor(wanted.copy())) for wanted in (labels[:12], labels[:12][::-1]))
    assert found == pytest.approx(float(share * one + (1 - share) * other), rel=1e-4)


def test_gradients_add_up_over_parts(model, data):
    """Three batches of twelve are one of thirty-six."""
    results = []
    for batch, parts in ((36, 1), (12, 3)):
        options = recipe(epochs=1, optimizer="sgd", momentum=0.0, learning_rate=0.05, batch_size=batch, accumulate=parts)
        training = Training(model, TorchModel(model.module), load_data(data, SPEC), None, options)
        training._epoch(0, 1, training.optimizer(0.05), None)
        results.append(training._network.params())
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, atol=1e-6)


def test_a_loss_that_is_not_finite_ends_training_and_the_best_stays(model, data, monkeypatch):
    tuned = finetune(model, data, epochs=2, batch_size=8, learning_rate=0.01, average=False)
    original = Lesson.__call__
    calls = []

    def poisoned(self, indices, rng=None, view=None):
        loss, right = original(self, indices, rng, view)
        calls.append(rng is not None)
        return (loss * (float("nan") if sum(calls) > 10 and rng is not None else 1.0)), right

    monkeypatch.setattr(Lesson, "__call__", poisoned)
    ended = finetune(model, data, epochs=4, batch_size=8, learning_rate=0.01, average=False)
    assert "ended in epoch 3, where the loss became nan" in ended.provenance[-1]
    assert any((ended.params[name] != value).any() for name, value in model.params.items())
    assert ended.params.keys() == tuned.params.keys()


def test_mixed_precision_is_pytorchs_autocast(model, data):
    """Forwards and backwards as by hand; what is judged, and the weights, are of full precision."""
    indices = np.arange(20)
    made = {}
    for mixed in (False, True):
        options = recipe(mixed_precision=mixed, learning_rate=0.01)
        training = Training(model, TorchModel(model.module), load_data(data, SPEC), None, options)
        loss = training._lesson(indices, np.random.default_rng(0))[0]
        loss.backward()
        tensors = training._network.tensors
        made[mixed] = float(loss.detach()), {name: tensor.grad for name, tensor in tensors.items()}, training.loss(indices)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert made[True][2] == made[False][2]
    params = {name: torch.tensor(value, requires_grad=True) for name, value in model.params.items()}
    with torch.autocast("cpu", torch.bfloat16):
        out = by_hand(params, torch.tensor(data[0][:20]))
    expected = functional.cross_entropy(out.float(), torch.tensor(data[1][:20]))
    expected.backward()
    assert made[True][0] == pytest.approx(float(expected.detach()), rel=1e-5)
    assert made[True][0] != made[False][0]
    for name, tensor in params.items():
        size = float(tensor.grad.abs().max())
        torch.testing.assert_close(made[True][1][name], tensor.grad, rtol=0, atol=0.02 * size)


def test_samples_are_changed_as_a_function_says(model, data):
    """Every sample becomes zero, so that only biases learn of the inputs; the samples held back are left as they are."""
    seen = []

    def blank(samples, rng):
        seen.append(len(samples[0]))
        return [np.zeros_like(samples[0])]

    training = Training(model, TorchModel(model.module), load_data(data, SPEC), None, recipe(batch_size=36), change=blank)
    training._epoch(0, 1, training.optimizer(0.01), None)
    assert seen == [36]
    first = next(name for name, tensor in training._weights.items() if tensor.ndim == 4)
    assert (training._weights[first].grad == 0).all()
    with pytest.raises(UserError, match="changed from shapes"):
        finetune(model, data, epochs=1, change=lambda samples, rng: [samples[0][:, :1]])
