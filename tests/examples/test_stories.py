"""The stories: their commands work as they stand there, the networks are what their scripts make, figures are of real runs."""

from __future__ import annotations

import runpy
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tests.docs.markdown import ROOT, Block, all_blocks
from tests.tvmcompress.cli.running import run

EXAMPLES = ROOT / "examples"
RUN = [block for block in all_blocks() if block.needs is not None and block.page.startswith("examples/")]


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the stories, in which they may write; what lies beside the repository lies beside it, too."""
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        (tmp_path / "shared").symlink_to(shared)
    copy = tmp_path / "repository" / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__", "calib.npz", "test.npz", "out*"))
    return copy


def execute(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command in a folder, as a shell would, in this process."""
    words = shlex.split(command)
    monkeypatch.chdir(folder)
    if words[0] == "tvmcompress":
        ran = run(*words[1:])
        assert ran.code == 0, (command, ran.err)
        return
    assert words[0] == "python"
    before = set(sys.modules)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", words[1:])
        patch.syspath_prepend(str((folder / words[1]).parent))
        runpy.run_path(words[1], run_name="__main__")
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.page.split("/")[1])
def test_commands(block: Block, examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    block.skip_unless_it_can_run()
    folder = examples / Path(block.page).parent.name
    for command in block.commands:
        execute(command, folder, monkeypatch)
    said = capsys.readouterr().out
    if folder.name == "spindle":
        assert float(said.split("ROC curve ")[1].split(";")[0]) > 0.9
    if folder.name == "robot_arm":
        before, after = (float(part.split()[-1]) for part in said.split(" mrad")[:2])
        assert after < before / 4


@dataclass(frozen=True)
class Training:
    """A training script in a quick form."""

    story: str
    options: str


TRAININGS = [
    Training("bearings", "--epochs 1 --windows 320"),
    Training("spindle", "--epochs 1"),
    Training("robot_arm", "--epochs 2 --poses 2000"),
    Training("building", "--epochs 1 --rooms 400"),
    Training("vision_transformer", "--epochs 2"),
]


@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.story)
def test_training(training: Training, examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script writes a network that takes and gives what the committed one takes and gives."""
    pytest.importorskip("sklearn")
    if training.story != "robot_arm":
        pytest.importorskip("torch")
    folder = examples / training.story
    committed = tvmcompress.load(folder / "model.onnx")
    (folder / "model.onnx").unlink()
    execute(f"python train.py {training.options} --output .", folder, monkeypatch)
    made = tvmcompress.load(folder / "model.onnx")
    assert [(spec.name, spec.shape) for spec in made.inputs] == [(spec.name, spec.shape) for spec in committed.inputs]
    samples = [np.zeros(spec.shape, np.float32) for spec in made.inputs]
    assert [out.shape for out in made.run(*samples)] == [out.shape for out in committed.run(*samples)]


@pytest.mark.parametrize("story", ["bearings", "building"])
def test_data_is_the_same_each_time_and_the_network_knows_it(
    story: str, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = examples / story
    script = next(path.name for path in folder.glob("*.py") if path.name != "train.py")
    execute(f"python {script}", folder, monkeypatch)
    first = dict(np.load(folder / "test.npz"))
    execute(f"python {script}", folder, monkeypatch)
    again = dict(np.load(folder / "test.npz"))
    assert first.keys() == again.keys()
    assert all((first[name] == again[name]).all() for name in first)
    found = tvmcompress.evaluate(tvmcompress.load(folder / "model.onnx"), folder / "test.npz")
    assert found.accuracy is not None
    assert found.accuracy > 0.95


def test_networks_are_small() -> None:
    for path in EXAMPLES.rglob("*"):
        if path.suffix == ".onnx":
            assert path.stat().st_size < 300_000, path
