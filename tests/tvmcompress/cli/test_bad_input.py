"""Bad input is refused with one sentence and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.tvmcompress.cli.running import refused, run


@pytest.fixture
def network(digits: Path) -> Path:
    """The model file of the example."""
    return digits / "digits.onnx"


@pytest.fixture
def images(digits: Path) -> np.ndarray:
    """Forty images, float32 (40, 1, 8, 8)."""
    return np.load(digits / "digits_test.npz")["x_uint8"][:40].astype(np.float32)


@pytest.fixture
def compress(network: Path, tmp_path: Path) -> Callable[..., str]:
    """Compress with calibration arrays; refused, and nothing is left."""

    def command(*options: object, model: Path = network, **arrays: np.ndarray) -> str:
        folder = tmp_path / "work"
        folder.mkdir()
        if arrays:
            np.savez(tmp_path / "calib.npz", **arrays)
            options = ("--calib", tmp_path / "calib.npz", "--quantize", "int8", *options)
        sentence = refused("compress", model, *options, "-o", folder / "out")
        assert list(folder.iterdir()) == []
        return sentence

    return command


class TestModels:
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
    def test_truncated(self, share: float, network: Path, tmp_path: Path, compress: Callable[..., str]) -> None:
        content = network.read_bytes()
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(content[: int(len(content) * share)])
        assert "cut.onnx is not a whole ONNX file" in compress("--prune", 0.5, model=cut)
        assert "cut.onnx" in refused("inspect", cut)

    def test_missing(self, tmp_path: Path) -> None:
        assert "none.onnx does not exist" in refused("inspect", tmp_path / "none.onnx")

    def test_unknown_kind(self, tmp_path: Path) -> None:
        (tmp_path / "model.pt").write_bytes(b"x")
        assert "unknown kind '.pt'" in refused("inspect", tmp_path / "model.pt")

    def test_unknown_operator(self, tmp_path: Path, compress: Callable[..., str]) -> None:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        weights = [
            numpy_helper.from_array(np.zeros(shape, np.float32), name)
            for name, shape in (("w", (1, 8, 4)), ("r", (1, 8, 2)))
        ]
        lstm = helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="recurrent", hidden_size=2)
        graph = helper.make_graph([lstm], "g", [x], [y], weights)
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx"
        )
        sentence = compress("--prune", 0.5, model=tmp_path / "m.onnx")
        assert "'recurrent'" in sentence
        assert "LSTM" in sentence

    def test_nan_in_weights(self, network: Path, tmp_path: Path, compress: Callable[..., str]) -> None:
        proto = onnx.load(network)
        for tensor in proto.graph.initializer:
            if tensor.name == "res1.weight":
                value = numpy_helper.to_array(tensor).copy()
                value[3, 2, 1, 0] = np.nan
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        onnx.save(proto, tmp_path / "nan.onnx")
        sentence = compress("--prune", 0.5, model=tmp_path / "nan.onnx")
        assert "'res1.weight'" in sentence
        assert "NaN" in sentence

    def test_damaged_model_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "model.tvmc").write_bytes(b"PK\x03\x04 not really")
        assert "damaged" in refused("inspect", tmp_path / "model.tvmc")

    @pytest.mark.parametrize("shape", ["image", "image:", "image:1,x", "image:0,1,8,8", ":1,2"])
    def test_shapes_of_no_form(self, shape: str, network: Path) -> None:
        assert "--shape" in refused("inspect", network, "--shape", shape)


class TestData:
    def test_wrong_shape(self, compress: Callable[..., str]) -> None:
        assert "input 'image' takes 1x8x8" in compress(x=np.zeros((10, 1, 9, 9), np.float32))

    def test_wrong_dtype(self, compress: Callable[..., str]) -> None:
        assert "dtype <U" in compress(x=np.full((10, 1, 8, 8), "a"))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_nan(self, value: float, images: np.ndarray, compress: Callable[..., str]) -> None:
        images[7, 0, 3, 3] = value
        assert "NaN or infinity (first in sample 7)" in compress(x=images)

    def test_empty(self, compress: Callable[..., str]) -> None:
        assert "is empty" in compress(x=np.zeros((0, 1, 8, 8), np.float32))

    def test_labels_of_another_length(self, images: np.ndarray, tmp_path: Path, compress: Callable[..., str]) -> None:
        np.savez(tmp_path / "eval.npz", x=images, y=np.zeros(39, int))
        assert "40 samples but 39 labels" in compress("--eval", tmp_path / "eval.npz", x=images)

    def test_labels_that_are_no_class(self, images: np.ndarray, network: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "eval.npz", x=images, y=np.full(40, 10))
        assert "10 classes" in refused("evaluate", network, tmp_path / "eval.npz")

    def test_truncated(self, digits: Path, tmp_path: Path, compress: Callable[..., str]) -> None:
        content = (digits / "digits_calib.npz").read_bytes()
        (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
        assert "not a whole .npz" in compress("--calib", tmp_path / "cut.npz", "--quantize", "int8")

    def test_no_labels(self, images: np.ndarray, network: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "eval.npz", x=images)
        assert "no labels" in refused("evaluate", network, tmp_path / "eval.npz")

    @pytest.mark.parametrize("options", [("--mean", "1,2"), ("--std", "0"), ("--mean", "a"), ("--std", "1,2,3")])
    def test_preprocessing(self, options: tuple[str, ...], network: Path, digits: Path) -> None:
        assert options[0] in refused("evaluate", network, digits / "digits_test.npz", *options)

    def test_skipping_everything(self, network: Path, digits: Path) -> None:
        assert "leaves none" in refused("evaluate", network, digits / "digits_test.npz", "--skip", 600)


class TestOptions:
    @pytest.mark.parametrize("ratio", ["0", "1", "-0.5", "1.5", "nan"])
    def test_ratio(self, ratio: str, compress: Callable[..., str]) -> None:
        assert "between 0 and 1" in compress(f"--prune={ratio}")

    def test_nothing_to_do(self, compress: Callable[..., str]) -> None:
        assert "nothing to do" in compress()

    def test_quantization_without_data(self, compress: Callable[..., str]) -> None:
        assert "--calib" in compress("--quantize", "int8")

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            (("--quantize", "int3"), "int3"),
            (("--prune", 0.5, "--scope", "somewhere"), "scope"),
            (("--prune", 0.5, "--importance", "beauty"), "beauty"),
            (("--prune", 0.5, "--exclude", "nothing_like_it"), "nothing_like_it"),
            (("--prune", 0.5, "--target", "cortex-m44"), "cortex-m4"),
            (("--scope", "global"), "--scope says nothing without --prune"),
            (("--target-macs", 1.5), "target_macs"),
            (("--target-macs", 0.5, "--prune", 0.5), "not both"),
            (("--target-macs", 0.5, "--scope", "global"), "scope says nothing beside target_macs"),
            (("--max-ram", "many"), "--max-ram many is not a size"),
            (("--max-flash", "64K"), "--target cortex-m4"),
            (("--sparsify", "most"), "--sparsify most is neither"),
            (("--sparsify", "4:2"), "4 of 2"),
            (("--prune-heads", 0.5), "no channel could be removed"),
            (("--prune", 0.5, "--observer", "minmax"), "--observer says nothing without --quantize"),
            (("--prune", 0.5, "--tune", 5), "--target x86"),
            (("--prune", 0.5, "--recipe", "none.toml"), "none.toml cannot be read"),
        ],
    )
    def test_options_that_do_not_fit(
        self, options: tuple[object, ...], word: str, compress: Callable[..., str]
    ) -> None:
        assert word in compress(*options)

    def test_an_unknown_observer(self, images: np.ndarray, compress: Callable[..., str]) -> None:
        assert "'average'" in compress("--observer", "average", x=images)

    def test_layers_without_the_original(self, network: Path, digits: Path) -> None:
        assert "--against" in refused("evaluate", network, digits / "digits_test.npz", "--layers")


class TestOutput:
    def test_a_file_in_the_way(self, network: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        for place in (tmp_path / "file", tmp_path / "file" / "out"):
            refused("compress", network, "--prune", 0.5, "-o", place)
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_folder_of_somebody_else(self, network: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("mine")
        assert "holds other files" in refused("compress", network, "--prune", 0.5, "-o", tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]

    def test_not_writable(self, network: Path, tmp_path: Path) -> None:
        place = Path("/proc/out")
        if os.geteuid() != 0:
            tmp_path.chmod(0o500)
            place = tmp_path / "out"
        assert "cannot be written" in refused("compress", network, "--prune", 0.5, "-o", place)

    def test_full_disk(self, network: Path, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        try:
            (disk / "mine").write_bytes(bytes(30000))
            assert "is full" in refused("compress", network, "--prune", 0.1, "--no-repair", "-o", disk / "out")
            assert [path.name for path in disk.iterdir()] == ["mine"]
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_an_older_output(self, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is replaced by a run that succeeds, survives one that fails, and stops one if it holds anything else."""
        out = tmp_path / "out"
        options = ("compress", network, "--prune", 0.3, "--no-repair", "--no-onnx", "-o", out)
        for _ in range(2):
            assert run(*options).code == 0
        before = {path.name: path.read_bytes() for path in out.iterdir()}
        refused(*options, "--importance", "beauty")
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        (out / ".git").mkdir()
        assert "(.git/)" in refused(*options)
        monkeypatch.chdir(out)
        assert "(.git/)" in refused(*options[:-1], ".")
        assert {path.name for path in out.iterdir()} == {*before, ".git"}
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize("target", ["x86", "cortex-m4"])
    @pytest.mark.parametrize("size", [8, 150])
    def test_full_temporary_files(
        self, target: str, size: int, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However much there is room for before."""
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        monkeypatch.setenv("TMPDIR", str(disk))
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        try:
            sentence = refused("benchmark", network, "-t", target, "-o", tmp_path / "out")
            assert "is full" in sentence or "No space left" in sentence
            assert list(disk.iterdir()) == []
        finally:
            subprocess.run(["umount", disk], check=True)
        assert [path.name for path in tmp_path.iterdir()] == ["disk"]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_interrupted(self, number: signal.Signals, network: Path, digits: Path, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "tvmcompress.cli.main", "benchmark", network, "--calib", digits / "digits_calib.npz",
             "--prune", "0.5", "--target", "x86", "-o", tmp_path / "out"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "Interrupted" in err
        assert "Traceback" not in err
        assert out == ""
        assert list(tmp_path.iterdir()) == []


def test_wrong_version_of_the_ffi(network: Path, tmp_path: Path) -> None:
    """The versions are checked before TVM, which the wrong one would crash, is loaded."""
    fake = tmp_path / "apache_tvm_ffi-0.1.15.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: apache-tvm-ffi\nVersion: 0.1.15\n")
    done = subprocess.run(
        [sys.executable, "-m", "tvmcompress.cli.main", "inspect", network],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "pip install apache-tvm-ffi==0.1.14.post1" in done.stderr
    assert "Traceback" not in done.stderr


class TestBuilding:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--patch-wise", "-t", "x86"), "--patch-wise is for microcontrollers; add --target cortex-m4"),
            (("--no-soft-float", "-t", "cortex-a72"), "--no-soft-float is for microcontrollers"),
            (("--spend-flash", "8K", "-t", "x86"), "--spend-flash is for microcontrollers"),
            (("--sparse-weights", "-t", "x86"), "--sparse-weights is for microcontrollers"),
            (("--spend-flash", "much", "-t", "cortex-m4"), "--spend-flash much is not a size"),
            (("--emit", "c", "-t", "x86"), "--emit says what is written for Cortex-M and Cortex-A"),
            (("--emit", "rust", "-t", "cortex-m4"), "--emit rust is neither object nor c"),
        ],
    )
    def test_options_that_no_target_takes(
        self, options: tuple[str, ...], words: str, network: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tvmcompress.targets.base.Target.require_tools", lambda self: None)
        assert words in refused("benchmark", network, *options)
