"""Importance from gradients, against the same computed by hand in PyTorch."""

# mypy: ignore-errors

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch.nn import functional

from tvmcompress import compress
from tvmcompress.data.dataset import load_data
from tvmcompress.errors import MissingToolError, UserError
from tvmcompress.model import Model
from tvmcompress.passes import PruneChannels, PruneHeads, PruneToBudget, get_params, get_surgery, groups
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.pruning.importance import CRITERIA, get_criterion, prepare
from tvmcompress.training import FisherImportance, TaylorImportance

from ...passes.conftest import Net
from ..cli.running import run as run_command
from .test_bridge import attention

op, nn = relax.op, relax.op.nn
SAMPLES = 12


def network(classes=3, end=lambda built, y: y, batch=1):
    """Convolution a (6 channels), ReLU, convolution b (5), ReLU, mean, dense c."""
    built = Net((batch, 2, 5, 5), seed=4)
    y = built.relu(built.conv(built.x, 6, name="a"))
    y = built.relu(built.conv(y, 5, name="b"))
    return built.finish(end(built, built.dense(built.mean(y, keepdims=False), classes, name="c")))


def by_hand(params, x):
    """The same network, written down again."""
    y = functional.conv2d(x, params["a.weight"], params["a.bias"].reshape(-1), padding=1).relu()
    y = functional.conv2d(y, params["b.weight"], params["b.bias"].reshape(-1), padding=1).relu()
    return y.mean((2, 3)) @ params["c.weight"] + params["c.bias"]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(SAMPLES, 2, 5, 5)).astype("float32")


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 3, SAMPLES)


def products(mod, x, loss):
    """Weight times gradient of `loss(index, logits)` by parameter, one a sample."""
    params = {name: torch.tensor(value, requires_grad=True) for name, value in get_params(mod).items()}
    for index in range(len(x)):
        grads = torch.autograd.grad(loss(index, by_hand(params, torch.tensor(x[[index]]))), list(params.values()))
        yield {name: (g * params[name]).detach().numpy() for (name, g) in zip(params, grads)}


def taylor(found):
    """Scores of the groups of a and b from the weights that read them."""
    a = np.stack([p["b.weight"].sum((0, 2, 3)) for p in found])
    b = np.stack([p["c.weight"].sum(1) for p in found])
    return {"a": np.square(a).mean(0), "b": np.square(b).mean(0)}


def fisher(found):
    squares = {name: np.mean([np.square(p[name]) for p in found], axis=0) for name in found[0]}
    a = squares["a.weight"].sum((1, 2, 3)) + squares["b.weight"].sum((0, 2, 3))
    b = squares["b.weight"].sum((1, 2, 3)) + squares["c.weight"].sum(1)
    return {"a": a / 2, "b": b / 2}


BY_HAND = {TaylorImportance: taylor, FisherImportance: fisher}
both = pytest.mark.parametrize("criterion", BY_HAND)


def scores(mod, criterion):
    function, params = prepare(criterion, mod), get_params(mod)
    return {group.name: function(group, params) for group in groups(mod) if group.frozen is None}


def cross_entropy(labels):
    return lambda index, logits: functional.cross_entropy(logits, torch.tensor(labels[[index]]))


def assert_scores(found, expected, tolerance=1e-4):
    assert found.keys() == expected.keys() == {"a", "b"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * value.max())


@both
def test_with_labels(criterion, x, labels):
    mod = network()
    found = list(products(mod, x, cross_entropy(labels)))
    assert_scores(scores(mod, criterion([x], labels)), BY_HAND[criterion](found))


@both
@pytest.mark.parametrize("last", [nn.softmax, nn.log_softmax], ids=["softmax", "log_softmax"])
def test_the_model_may_end_in_a_softmax(criterion, last, x, labels):
    mod = network(end=lambda built, y: built.emit(last(y, -1)))
    assert_scores(scores(mod, criterion([x], labels)), scores(network(), criterion([x], labels)), 1e-3)


@both
def test_without_labels_it_is_the_mean_over_the_models_own(criterion, x):
    """The expectation over labels that are drawn from the predictions, which for two classes all draws of signs give."""
    mod = network(classes=2)
    x = x[:3]
    expected = {"a": 0.0, "b": 0.0}
    for index in range(len(x)):
        share = functional.softmax(torch.tensor(run(mod, [x[[index]]])[0]), 1).numpy()[0]
        for label, chance in enumerate(share):
            one = BY_HAND[criterion](list(products(mod, x[[index]], cross_entropy(np.array([label])))))
            expected = {name: value + chance * one[name] / len(x) for name, value in expected.items()}
    many = np.concatenate([x] * 200)
    assert_scores(scores(mod, criterion([many])), expected, 0.15)


@both
def test_outputs_that_are_no_classes(criterion, x):
    """The mean over all signs of what each output tells, over the output's root mean square."""
    built = Net((1, 2, 5, 5), seed=4)
    mod = built.finish(built.conv(built.relu(built.conv(built.x, 6, name="a")), 1, kernel=5, padding=0, name="b"))
    params = get_params(mod)
    output = run(mod, [x])[0]
    width = np.sqrt(np.square(output).mean())
    # One number a sample: its sign does not matter.
    hidden = np.maximum(torch.conv2d(*map(torch.tensor, (x, params["a.weight"])), padding=1) + params["a.bias"], 0).numpy()
    alone = (hidden * params["b.weight"]).sum((2, 3)) / width
    found = scores(mod, criterion([x]))["a"]
    if criterion is TaylorImportance:
        np.testing.assert_allclose(found, np.square(alone).mean(0), rtol=1e-4)
    assert (found > 0).all()


def test_several_outputs_count_alike(x):
    def two(scale):
        built = Net((1, 2, 5, 5), seed=4)
        hidden = built.mean(built.relu(built.conv(built.x, 6, name="a")), keepdims=False)
        first, second = built.dense(hidden, 2, name="b"), built.dense(hidden, 3, name="c")
        return built.finish(first, built.mul(second, relax.const(np.float32(scale))))

    found = [scores(two(scale), TaylorImportance([x]))["a"] for scale in (1, 1000)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


@both
def test_a_larger_batch_in_the_graph(criterion, x, labels):
    """Gradients are then those of whole batches."""
    found = scores(network(batch=2), criterion([x], labels))
    pairs = list(products(network(), x, cross_entropy(labels)))
    pairs = [{name: one[name] + two[name] for name in one} for one, two in zip(pairs[::2], pairs[1::2])]
    assert_scores(found, BY_HAND[criterion](pairs))


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_by_name(name, x):
    mod = network()
    assert name in CRITERIA
    expected = scores(mod, get_criterion(name, [x]))
    report = get_surgery(PruneChannels(0.5, importance=name, samples=[x])(mod))
    removed = {group.name: group.removed for group in report.groups}
    assert removed["a"] == sorted(np.argsort(expected["a"])[:3].tolist())
    assert f"({name}, local)" in report.groups[0].reason


def test_heads_and_budgets():
    x = np.random.default_rng(0).normal(size=(6, 6, 8)).astype("float32")
    assert get_surgery(PruneHeads(0.5, importance="taylor", samples=[x])(attention())).groups
    assert get_surgery(PruneToBudget(0.7, importance="fisher", samples=[x])(attention())).groups


def accuracy(mod, data):
    return float((run(mod, data.inputs())[0].argmax(1) == data.labels).mean())


def test_beats_chance_on_digits(digits_model, digits):
    samples = load_data(digits / "digits_calib.npz", digits_model.inputs, limit=60)
    test = load_data(digits / "digits_test.npz", digits_model.inputs)

    def left(importance):
        removal = PruneChannels(0.25, importance=importance, scope="global", normalization="none", samples=samples.inputs())
        return accuracy(removal(digits_model.module), test)

    chance = left("random")
    assert left("taylor") > chance
    assert left(TaylorImportance(samples.inputs(), samples.labels)) > chance
    assert left("fisher") > chance


def test_labels_of_the_data_are_used(digits_model, digits):
    data = load_data(digits / "digits_calib.npz", digits_model.inputs, limit=40)
    recipe = {"ratio": 0.3, "importance": "taylor", "reconstruct": False}
    result = compress(digits_model, data, prune=recipe)
    expected = PruneChannels(0.3, importance=TaylorImportance(data.inputs(), data.labels))(digits_model.module)
    assert result.surgery == get_surgery(expected)
    assert result.model.provenance[-1].endswith(", taylor")


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_command_line(name, digits, tmp_path):
    arguments = ["compress", str(digits / "digits.onnx"), "--prune", "0.3", "--importance", name, "--no-repair"]
    data = ["--calib", str(digits / "digits_calib.npz"), "--calib-samples", "40"]
    ran = run_command(*arguments, *data, "-o", str(tmp_path / "out"))
    assert ran.code == 0, ran.err
    model = Model.load(next((tmp_path / "out").glob("*.tvmc")))
    assert name in " ".join(model.provenance)


@both
def test_what_is_refused(criterion, x, labels, monkeypatch):
    mod = network()
    with pytest.raises(UserError, match="needs calibration samples"):
        criterion(None)
    with pytest.raises(UserError, match="from 0 to 9, but the model tells 3 classes apart"):
        scores(mod, criterion([x], np.append(labels[1:] * 0, 9)))
    with pytest.raises(UserError, match="12 integers, one a sample"):
        scores(mod, criterion([x], labels[:5]))
    with pytest.raises(UserError, match=r"shape \(1, 2, 5, 5\)"):
        scores(mod, criterion([x[:, :, 1:]]))
    with pytest.raises(UserError, match="not finite"):
        scores(mod, criterion([np.full_like(x, np.nan)]))
    images = Net((1, 2, 5, 5))
    with pytest.raises(UserError, match="no list of classes"):
        scores(images.finish(images.conv(images.conv(images.x, 4), 2)), criterion([x], labels))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingToolError, match="PyTorch"):
        PruneChannels(0.5, importance=criterion.name, samples=[x])
