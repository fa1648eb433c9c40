"""Distillation into other architectures: ensembles, hints between layers, and the command."""

# Without PyTorch there is nothing to test here.
# ruff: noqa: E402
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

torch = pytest.importorskip("torch")

import tvmcompress
from tests.tvmcompress.cli.running import refused, run
from tvmcompress import Model, UserError, evaluate, finetune, load_data
from tvmcompress.passes import PruneChannels, Reconstruct
from tvmcompress.passes.pruning.prune_blocks import find_blocks
from tvmcompress.training.bridge import TorchModel
from tvmcompress.training.lesson import Lesson
from tvmcompress.training.teachers import Hints, Teachers


@pytest.fixture(scope="module")
def student_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of another architecture than the teacher's, untrained."""
    rng = np.random.default_rng(0)
    shapes = {"c.weight": (6, 1, 3, 3), "c.bias": (6,), "f.weight": (10, 6 * 16), "f.bias": (10,)}
    weights = {name: (rng.normal(size=shape) * 0.2).astype("float32") for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["image", "c.weight", "c.bias"], ["c"], name="c", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="r"),
        helper.make_node("Flatten", ["r"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "f.weight", "f.bias"], ["logits"], name="f", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "student",
        [helper.make_tensor_value_info("image", 1, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", 1, [1, 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path_factory.mktemp("student") / "student.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def student(student_file: Path) -> Model:
    return tvmcompress.load(student_file)


def test_several_teachers_count_as_their_mean(digits_model: Model, student: Model) -> None:
    x = np.random.default_rng(1).normal(size=(5, 1, 8, 8)).astype("float32")
    mean, layer = (value.detach().numpy() for value in Teachers([digits_model, student], ["stem"])(torch.from_numpy(x)))
    np.testing.assert_allclose(mean, (digits_model.run(x)[0] + student.run(x)[0]) / 2, rtol=1e-4, atol=1e-4)
    weight, bias = (torch.from_numpy(digits_model.params[name]) for name in ("stem.weight", "stem.bias"))
    plain = torch.nn.functional.conv2d(torch.from_numpy(x), weight, padding=1)
    np.testing.assert_allclose(layer, plain.numpy(), rtol=1e-4, atol=1e-4)
    assert bias.numel() == 32
    with pytest.raises(UserError, match="the teacher has no layer 'nowhere'"):
        Teachers([digits_model], ["nowhere"])


def test_hints_by_hand() -> None:
    rng = np.random.default_rng(2)
    value, target = (torch.from_numpy(rng.normal(size=(4, channels, 3, 3)).astype("float32")) for channels in (2, 5))
    hints = Hints({"a": "b"}, [value], [target])
    (projection,) = hints.maps.values()
    mapped = torch.einsum("nchw,oc->nohw", value, projection)
    expected = (mapped - target).square().mean() / target.square().mean()
    assert float(hints([value], [target])) == pytest.approx(float(expected), rel=1e-5)
    assert float(Hints({"a": "b"}, [target], [target])([target], [target])) == 0
    with pytest.raises(UserError, match=r"layer 'a' gives \(2, 3, 3\) a sample and the teacher's 'b' \(5, 2, 3\)"):
        Hints({"a": "b"}, [value], [target[:, :, :2]])


def test_a_student_learns(digits: Path, digits_model: Model, student: Model) -> None:
    data = load_data(digits / "digits_calib.npz", student.inputs)
    options = {"epochs": 6, "learning_rate": 0.03, "batch_size": 20}
    taught = finetune(student, data, teacher=[digits_model, digits_model], hints={"c.relu": "dw1"}, **options)
    before, after = (evaluate(model, digits / "digits_test.npz").accuracy for model in (student, taught))
    assert before is not None
    assert after is not None
    assert before < 0.4
    assert after > 0.75
    assert taught.params.keys() == student.params.keys()
    network = TorchModel(taught.module)
    assert network.tapped() == []


def test_of_views_a_teacher_is_asked_once(
    digits: Path, digits_model: Model, student: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is what asking again would say, and a view is seen in its turn of every round."""
    data = load_data(digits / "digits_calib.npz", student.inputs, limit=60)
    options = {"epochs": 5, "learning_rate": 0.02, "batch_size": 10, "accumulate": 2, "augment": ("flip",), "cutmix": 0.5}
    asked: list[int] = []
    plain = Teachers.__call__
    monkeypatch.setattr(Teachers, "__call__", lambda self, *x: asked.append(len(x[0])) or plain(self, *x))

    def taught(**more: Any) -> Model:
        asked.clear()
        return finetune(student, data, teacher=digits_model, **options, **more)

    kept = taught(views=2)
    # 54 samples make two steps of twice ten an epoch; the six held back are asked about to see what fits, and to judge.
    assert asked[-9:] == [6, *[10] * 2 * 2 * 2]
    monkeypatch.setattr(Lesson, "_kept", lambda self, view: None)
    again = taught(views=2)
    assert asked[-21:] == [6, *[10] * 2 * 2 * 5]
    for name, value in kept.params.items():
        np.testing.assert_array_equal(again.params[name], value)
    assert any((taught().params[name] != value).any() for name, value in kept.params.items())
    with pytest.raises(UserError, match="leave out hints and features"):
        taught(views=2, hints={"c": "stem"})


def test_what_does_not_fit(digits: Path, digits_model: Model, student: Model, student_file: Path, tmp_path: Path) -> None:
    data = load_data(digits / "digits_calib.npz", student.inputs, limit=40)
    with pytest.raises(UserError, match="hints are from a teacher's layers"):
        finetune(student, data, hints={"c": "stem"}, epochs=1)
    with pytest.raises(UserError, match="hints are between layers that differ in their channels alone"):
        finetune(student, data, teacher=digits_model, hints={"c": "stem"}, epochs=1)
    with pytest.raises(UserError, match="the model has no layer 'x'"):
        finetune(student, data, teacher=digits_model, hints={"x": "stem"}, epochs=1)
    common = ["--teacher", digits / "digits.onnx", "--train-data", digits / "digits_calib.npz", "-o", tmp_path / "out"]
    assert "give a student, or --width 0.5" in refused("distill", *common)
    assert "and not both" in refused("distill", student_file, "--width", 0.5, *common)
    assert "--width 2 is no fraction" in refused("distill", "--width", 2, *common)
    assert "--hint c is not of the form" in refused("distill", student_file, "--hint", "c", *common)
    assert "--hint-weight says nothing without --hint" in refused("distill", student_file, "--hint-weight", 2, *common)
    assert "finetune.temperature" in refused("distill", student_file, "--temperature", 0, *common)


def test_command_line(digits: Path, student_file: Path, tmp_path: Path) -> None:
    data = ["--train-data", digits / "digits_calib.npz", "--eval", digits / "digits_test.npz"]
    out = tmp_path / "out"
    fast = ["--epochs", 4, "--learning-rate", 0.03, "--batch-size", 20]
    teachers = ["--teacher", digits / "digits.onnx"]
    ran = run("distill", student_file, *teachers, *data, *fast, "--hint", "c.relu=dw1", "-o", out)
    assert ran.code == 0, ran.err
    report = json.loads((out / "report.json").read_text())
    accuracies = {model["name"]: model["evaluation"]["accuracy"] for model in report["models"]}
    assert list(accuracies) == ["teacher", "student", "distilled"]
    assert accuracies["teacher"] > accuracies["distilled"] > accuracies["student"]
    assert Model.load(out / "model.tvmc").params["c.weight"].shape == (6, 1, 3, 3)
    smaller = ["--width", 0.5, "--depth", 0.5, *teachers, *data, "--epochs", 1, "-o", tmp_path / "half"]
    narrow = run("distill", *smaller)
    assert narrow.code == 0, narrow.err
    made, whole = Model.load(tmp_path / "half" / "model.tvmc"), tvmcompress.load(digits / "digits.onnx")
    assert made.params["stem.weight"].shape == (16, 1, 3, 3)
    blocks = [len({block.name for block in find_blocks(model.module)}) for model in (made, whole)]
    assert blocks[0] <= blocks[1] - round(0.5 * blocks[1])


def test_a_student_made_of_the_teacher_begins_repaired(digits: Path, tmp_path: Path) -> None:
    """Without labels in what it learns on; least squares alone brings back most of what removal took."""
    whole = tvmcompress.load(digits / "digits.onnx")
    images = load_data(digits / "digits_calib.npz", whole.inputs).first(200).inputs()[0]
    np.save(tmp_path / "images.npy", images)
    ran = run(
        *("distill", "--width", 0.5, "--teacher", digits / "digits.onnx", "--train-data", tmp_path / "images.npy"),
        *("--eval", digits / "digits_test.npz", "--epochs", 1, "--learning-rate", 1e-6, "-o", tmp_path / "out"),
    )
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    begins = {model["name"]: model["evaluation"]["accuracy"] for model in report["models"]}["student"]
    bare = whole.apply(PruneChannels(0.5, importance="l2"))
    expected = bare.apply(Reconstruct(whole.module, [images]))
    removed, repaired = (evaluate(model, digits / "digits_test.npz").accuracy for model in (bare, expected))
    assert removed is not None
    assert begins == repaired
    assert begins > removed + 0.1
    assert any("weights repaired by least squares" in line for line in Model.load(tmp_path / "out" / "model.tvmc").provenance)
