"""Fine-tuning, against the same steps written down in PyTorch."""

# mypy: ignore-errors

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from tvmcompress import Model, compress, finetune
from tvmcompress.data.dataset import load_data
from tvmcompress.errors import MissingToolError, UserError
from tvmcompress.model import InputSpec
from tvmcompress.passes import PruneChannels, Sparsify, get_params
from tvmcompress.passes.pruning.sparsify import get_masks
from tvmcompress.training.bridge import TorchModel
from tvmcompress.training.finetuning import Score, Training

from ...passes.conftest import Net
from ..cli.running import refused
from ..cli.running import run as run_command
from .test_gradient_criteria import by_hand, network

SPEC = (InputSpec(name="input0", shape=(1, 2, 5, 5)),)


def test_a_step_of_sgd(model, data):
    """One epoch of one batch: all samples but those held back, in whatever order."""
    x, labels = data
    options = {"epochs": 1, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.05, "batch_size": 36}
    training = Training(model, TorchModel(model.module), load_data(data, SPEC), None, recipe(**options))
    training._epoch(0, 1, training.optimizer(training.recipe.learning_rate), None)
    params = {name: torch.tensor(value, requires_grad=True) for name, value in get_params(model.module).items()}
    learned = np.sort(training._learned)
    assert len(learned) == 36
    functional.cross_entropy(by_hand(params, torch.tensor(x[learned])), torch.tensor(labels[learned])).backward()
    for name, tensor in params.items():
        expected = (tensor - 0.05 * tensor.grad).detach().numpy()
        np.testing.assert_allclose(training._network.params()[name], expected, atol=1e-6)


def recipe(**options):
    from tvmcompress.recipe.recipe import as_finetune_recipe

    return as_finetune_recipe(options)


def test_adamw_steps_are_relative_to_the_weights(model, data):
    training = Training(model, TorchModel(model.module), load_data(data, SPEC), None, recipe(learning_rate=0.02, batch_size=36))
    training._epoch(0, 1, training.optimizer(training.recipe.learning_rate), None)
    for name, before in get_params(model.module).items():
        # The first step of Adam is as long as its rate, whatever the gradient.
        step = np.abs(training._network.params()[name] - before)
        np.testing.assert_allclose(np.median(step), 0.02 * np.sqrt(np.square(before).mean()), rtol=0.02)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_distillation_is_hintons(model, data, alpha):
    x, labels = data
    teacher = Model(network(), SPEC).with_params({"c.bias": np.array([1.0, -1.0, 0.5], "float32")})
    training = Training(model, TorchModel(model.module), load_data(data, SPEC), teacher, recipe(temperature=3.0, alpha=alpha))
    indices = np.arange(10)
    found = float(training._lesson(indices)[0].detach())
    out, told = (torch.tensor(m.run(x[:10])[0]) for m in (model, teacher))
    soft = functional.kl_div((out / 3).log_softmax(1), (told / 3).softmax(1), reduction="batchmean") * 9
    hard = functional.cross_entropy(out, torch.tensor(labels[:10]))
    assert found == pytest.approx(float(alpha * soft + (1 - alpha) * hard), rel=1e-5)
    # Without labels what looks like logits may be anything: the squared error.
    unlabelled = Training(model, TorchModel(model.module), load_data(x, SPEC), teacher, recipe(temperature=3.0, alpha=alpha))
    expected = float((out - told).square().mean() / told.square().mean())
    assert float(unlabelled._lesson(indices)[0].detach()) == pytest.approx(expected, rel=1e-5)


def test_probabilities_are_taken_for_what_they_are(model, data):
    soft = network(end=lambda built, y: built.emit(torch_softmax(y)))
    one, two = (Training(m, TorchModel(m.module), load_data(data, SPEC), None, recipe()) for m in (model, Model(soft, SPEC)))
    losses = [float(training._lesson(np.arange(20))[0].detach()) for training in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def torch_softmax(y):
    from tvmcompress.passes._tvm import relax

    return relax.op.nn.softmax(y)


def test_a_stopped_run_goes_on(model, data, tmp_path):
    options = {"epochs": 4, "batch_size": 8, "patience": 4, "learning_rate": 0.03}
    whole = finetune(model, data, **options)

    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(model, data, checkpoint=tmp_path / "run", on_progress=stop, **options)
    seen = []
    again = finetune(model, data, checkpoint=tmp_path / "run", on_progress=lambda *at: seen.append(at), **options)
    assert seen[0][0] == 9  # the third epoch's first batch of four
    assert seen[-1] == (16, 16)
    for name, value in whole.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    assert again.provenance[-1] == whole.provenance[-1]
    # Other options are another run.
    seen.clear()
    finetune(model, data, checkpoint=tmp_path / "run", on_progress=lambda *at: seen.append(at), **{**options, "seed": 1})
    assert seen[0][0] == 1
    (tmp_path / "run" / "finetune.pt").write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        finetune(model, data, checkpoint=tmp_path / "run", **options)


def test_sparse_weights_stay_sparse(model, data):
    sparse = model.apply(Sparsify(0.6))
    tuned = finetune(sparse, data, epochs=2, batch_size=8, weight_decay=0.1)
    masks = get_masks(sparse.module)
    assert masks
    for name, mask in masks.items():
        assert (tuned.params[name][~mask] == 0).all()
        assert (tuned.params[name] != sparse.params[name]).any()
    assert get_masks(tuned.module).keys() == masks.keys()


def test_statistics_of_normalizations_stay(data):
    built = Net((1, 2, 5, 5))
    y = built.batch_norm(built.relu(built.batch_norm(built.conv(built.x, 6, name="a"))))
    mod = built.finish(built.dense(built.mean(y, keepdims=False), 3))
    before, after = Model(mod, SPEC), finetune(Model(mod, SPEC), data, epochs=3, learning_rate=0.05)
    for name, value in before.params.items():
        assert (after.params[name] == value).all() == name.endswith((".mean", ".var")), name


def test_the_best_epoch_is_kept(model, data):
    """With a rate that destroys the model, what it came with is the best; training ends when patience does."""
    seen = []
    options = {"epochs": 50, "optimizer": "sgd", "learning_rate": 30.0, "patience": 2}
    teacher_fits = finetune(model, data[0], teacher=model, on_progress=lambda *at: seen.append(at), **options)
    assert len(seen) == 2
    for name, value in model.params.items():
        np.testing.assert_array_equal(teacher_fits.params[name], value)


def test_weights_halfway_are_kept_where_training_goes_too_far(model, data, monkeypatch):
    """The teacher lies in the middle between the weights before and those behind an epoch."""
    rng = np.random.default_rng(0)
    far = {name: 0.3 * rng.standard_normal(value.shape).astype(value.dtype) for name, value in model.params.items()}
    start = model.with_params({name: value - far[name] for name, value in model.params.items()})

    def epoch(training, *_):
        training.put({name: torch.from_numpy(model.params[name] + far[name]) for name in training.values()})

    monkeypatch.setattr(Training, "_epoch", epoch)
    tuned = finetune(start, data, teacher=model, alpha=1.0, epochs=1, average=False)
    assert "1 epochs on 36 samples, learning rate" in tuned.provenance[-1]
    assert "50% of the way to the last weights" in tuned.provenance[-1]
    for name, value in model.params.items():
        np.testing.assert_allclose(tuned.params[name], value, atol=1e-6)


@pytest.mark.parametrize(("between", "kept"), [(0.499, 1.0), (0.48, 1.0), (0.47, 0.75), (0.3, 0.75)])
def test_weights_in_between_must_be_clearly_better(model, data, monkeypatch, between, kept):
    """Training has lowered the loss by 0.5, so what lies in between has to be better by more than 0.025."""
    name = max(model.params, key=lambda name: model.params[name].size)
    before = torch.from_numpy(model.params[name])

    def score(training):
        part = round(float((training.values()[name] - before).mean()), 3)
        return Score({0.0: 1.0, 0.25: 0.9, 0.5: 0.7, 0.75: between, 1.0: 0.5}[part], None)

    def epoch(training, *_):
        training.put({name: value + 1 for name, value in training.values().items()})

    monkeypatch.setattr(Training, "_score", score)
    monkeypatch.setattr(Training, "_epoch", epoch)
    tuned = finetune(model, data, epochs=1, average=False, learning_rate=0.1)
    np.testing.assert_allclose(tuned.params[name], model.params[name] + kept, atol=1e-5)
    assert ("75% of the way" in tuned.provenance[-1]) == (kept < 1)


def test_models_that_give_back_their_input():
    built = Net((1, 6))
    mod = built.finish(built.dense(built.relu(built.dense(built.x, 4)), 6))
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(200, 2)) @ rng.normal(size=(2, 6))).astype("float32")
    model = Model(mod, (InputSpec(name="input0", shape=(1, 6)),))
    tuned = finetune(model, x, epochs=30, learning_rate=0.03, batch_size=20, patience=30)
    before, after = (float(np.square(m.run(x)[0] - x).mean()) for m in (model, tuned))
    assert after < 0.3 * before


def test_pruned_digits_recover(digits_model, digits):
    """Without labels, from the original alone, and with labels; both beat what pruning has left."""
    train = load_data(digits / "digits_calib.npz", digits_model.inputs)
    test = load_data(digits / "digits_test.npz", digits_model.inputs)

    def accuracy(model):
        return float((model.run(*test.inputs())[0].argmax(1) == test.labels).mean())

    pruned = digits_model.apply(PruneChannels(0.6, scope="global"))
    assert accuracy(pruned) < 0.3
    told = finetune(pruned, train, epochs=12, learning_rate=0.05, batch_size=32)
    unlabelled = load_data(train.inputs()[0], [s.model_copy(update={"preprocessing": None}) for s in digits_model.inputs])
    taught = finetune(pruned, unlabelled, teacher=digits_model, epochs=12, learning_rate=0.05, batch_size=32)
    assert accuracy(told) > 0.75
    assert accuracy(taught) > 0.65
    assert told.params.keys() == pruned.params.keys()


def test_command_line(digits, tmp_path):
    calib = digits / "digits_calib.npz"
    common = ["compress", digits / "digits.onnx", "--calib", calib, "--prune", "0.6", "--eval", digits / "digits_test.npz"]
    asked = ["--finetune", 2, "--train-data", calib, "--distill", "--learning-rate", 0.02, "--augment", "crop"]
    rest = ["--quantize", "int8", "--checkpoint", tmp_path / "run", "-o", tmp_path / "out", "--json"]
    ran = run_command(*common, *asked, *rest)
    assert ran.code == 0, ran.err
    assert (tmp_path / "run" / "finetune.pt").exists()
    report = ran.json
    assert [step["name"] for step in report["steps"]][:5] == ["prune", "repair", "fine-tune", "calibrate", "quantize"]
    assert "2 epochs on 360 samples" in report["steps"][2]["message"]
    assert report["recipe"]["finetune"]["augment"] == ["crop"]
    text = (tmp_path / "out" / "recipe.toml").read_text()
    assert "[finetune]" in text
    assert "distill = true" in text


def test_what_is_refused(model, data, digits, digits_model, tmp_path, monkeypatch):
    x, labels = data
    with pytest.raises(UserError, match="nothing to learn from"):
        finetune(model, x)
    with pytest.raises(UserError, match="from 0 to 7, but the model tells 3 classes apart"):
        finetune(model, (x, np.where(labels == 2, 7, labels)))
    with pytest.raises(UserError, match="at least two samples"):
        finetune(model, (x[:1], labels[:1]))
    with pytest.raises(UserError, match="other shapes"):
        finetune(model, x, teacher=Model(network(classes=4), SPEC))
    built = Net((1, 6))
    flat = Model(built.finish(built.dense(built.x, 3)), (InputSpec(name="input0", shape=(1, 6)),))
    with pytest.raises(UserError, match="cutmix is for one input with channels first"):
        finetune(flat, (np.zeros((8, 6), "float32"), np.zeros(8, "int64")), cutmix=0.5)
    with pytest.raises(UserError, match="epochs"):
        finetune(model, data, epochs=0)
    with pytest.raises(UserError, match="lower the learning rate"):
        finetune(model, data, optimizer="sgd", learning_rate=1e30, epochs=3)
    with pytest.raises(UserError, match="--train-data"):
        compress(digits_model, finetune=1)
    command = ("compress", digits / "digits.onnx", "-o", tmp_path / "o")
    assert "--finetune EPOCHS" in refused(*command, "--prune", 0.5, "--train-data", digits / "digits_calib.npz")
    assert "--finetune EPOCHS" in refused(*command, "--prune", 0.5, "--distill")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingToolError, match="PyTorch"):
        finetune(model, data)
    assert "PyTorch" in refused(*command, "--finetune", 1, "--train-data", digits / "digits_calib.npz", code=5)
