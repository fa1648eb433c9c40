"""Files that no command can use, of every kind that commands read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

SHAPE = (1, 8, 8)


def write_bad_files(folder: Path, digits: Path, model: Path) -> dict[str, Path]:
    """Write them all; by name, with the good ones of the example.

    Args:
        folder: Where.
        digits: The folder of the example.
        model: The example as a file of ours.
    """
    network, calib, test = (digits / name for name in ("digits.onnx", "digits_calib.npz", "digits_test.npz"))
    files = {"onnx": network, "calib": calib, "test": test, "tvmc": model, "none": folder / "none", "dir": folder / "dir.d"}
    files["dir"].mkdir()

    def write(name: str, content: bytes | str) -> None:
        files[name] = folder / name
        files[name].write_bytes(content.encode() if isinstance(content, str) else content)

    noise = np.random.default_rng(0).bytes(4096)
    for kind in ("onnx", "tflite", "npz", "npy", "tvmc", "toml", "json"):
        write(f"empty.{kind}", b"")
        write(f"noise.{kind}", noise)
        write(f"text.{kind}", "hello, world\n")
        (folder / f"folder.{kind}").mkdir()
        files[f"folder.{kind}"] = folder / f"folder.{kind}"
    write("model.pt", noise)
    write("data.csv", "1,2,3\n")
    write("naïve 模型 🙂.onnx", noise)
    write("long", b"")
    files["long"] = files["long"].rename(folder / ("x" * 200 + ".onnx"))
    for kind, good in (("onnx", network), ("npz", calib), ("tvmc", model)):
        content = good.read_bytes()
        write(f"half.{kind}", content[: len(content) // 2])
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 0xFF
        write(f"flipped.{kind}", bytes(damaged))
    write("magic.tflite", b"\x18\0\0\0TFL3" + noise)
    for name, content in {"empty": b"", "noise": noise, "other": b'{"a": 1}', "list": b"[1, 2, 3]"}.items():
        files[f"artifact_{name}"] = folder / f"artifact_{name}"
        files[f"artifact_{name}"].mkdir()
        (files[f"artifact_{name}"] / "artifact.json").write_bytes(content)
    _write_models(write, network)
    _write_arrays(folder, files)
    _write_ours(write)
    return files


def _write_models(write: Callable[[str, bytes | str], None], network: Path) -> None:
    def changed(name: str, change: Callable[[Any], None]) -> None:
        proto = onnx.load(network)
        change(proto)
        write(name, proto.SerializeToString())

    def set_first(value: float) -> Callable[[Any], None]:
        def change(proto: Any) -> None:
            tensor = next(entry for entry in proto.graph.initializer if entry.name == "res1.weight")
            array = numpy_helper.to_array(tensor).copy()
            array.flat[0] = value
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

        return change

    changed("nan.onnx", set_first(np.nan))
    changed("no_nodes.onnx", lambda proto: proto.graph.ClearField("node"))
    changed("no_outputs.onnx", lambda proto: proto.graph.ClearField("output"))
    changed("no_inputs.onnx", lambda proto: proto.graph.ClearField("input"))
    changed("no_weights.onnx", lambda proto: proto.graph.ClearField("initializer"))
    changed("no_graph.onnx", lambda proto: proto.ClearField("graph"))
    changed("opset.onnx", lambda proto: setattr(proto.opset_import[0], "version", 999))
    changed("operator.onnx", lambda proto: setattr(proto.graph.node[0], "op_type", "Frobnicate"))
    changed("domain.onnx", lambda proto: setattr(proto.graph.node[0], "domain", "com.example"))
    changed("dangling.onnx", lambda proto: proto.graph.node[1].input.__setitem__(0, "nowhere"))
    changed("circle.onnx", lambda proto: proto.graph.node[0].input.__setitem__(0, proto.graph.node[-1].output[0]))
    changed("cut_weights.onnx", lambda proto: setattr(proto.graph.initializer[0], "raw_data", b"\0" * 7))
    changed("external.onnx", _external)
    changed("open.onnx", lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[2], "dim_param", "H"))


def _external(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights_that_are_not_there.bin"


def _write_arrays(folder: Path, files: dict[str, Path]) -> None:
    images = np.random.default_rng(0).random((12, *SHAPE)).astype(np.float32)

    def save(name: str, **arrays: Any) -> None:
        files[name] = folder / name
        np.savez(files[name], **arrays)

    broken = images.copy()
    broken[7, 0, 3, 3] = np.nan
    save("nan.npz", x=broken)
    save("infinite.npz", x=np.where(np.isnan(broken), np.inf, broken))
    save("nothing.npz")
    save("no_samples.npz", x=images[:0])
    save("one_sample.npz", x=images[0])
    save("number.npz", x=np.float32(1))
    save("wrong_shape.npz", x=np.zeros((4, 3, 9, 9), np.float32))
    save("strings.npz", x=np.full((4, *SHAPE), "a"))
    save("complex.npz", x=images.astype(complex))
    save("dates.npz", x=np.zeros((4, *SHAPE), "datetime64[s]"))
    save("objects.npz", x=np.full((4, *SHAPE), None))
    save("int8.npz", x=images.astype(np.int8))
    save("two.npz", a=images, b=images)
    save("unlabelled.npz", x=images)
    for name, labels in {
        "short": np.zeros(11, int),
        "long": np.zeros(13, int),
        "negative": np.full(12, -1),
        "large": np.full(12, 10),
        "huge": np.full(12, 2**40),
        "halves": np.full(12, 0.5),
        "nan": np.full(12, np.nan),
        "words": np.full(12, "cat"),
        "columns": np.arange(36).reshape(12, 3),
        "booleans": np.ones(12, bool),
        "deep": np.zeros((12, 2, 2), int),
        "scalar": np.int64(3),
    }.items():
        save(f"labels_{name}.npz", x=images, y=labels)
    np.save(folder / "wrong_shape.npy", np.zeros((4, 3, 9, 9), np.float32))
    files["wrong_shape.npy"] = folder / "wrong_shape.npy"
    mixed = folder / "mixed"
    mixed.mkdir()
    np.save(mixed / "a.npy", images[0])
    np.save(mixed / "b.npy", images[0, :, :4])
    files["mixed"] = mixed


def _write_ours(write: Callable[[str, bytes | str], None]) -> None:
    def archive(name: str, **entries: bytes | str) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for entry, content in entries.items():
                file.writestr(entry.replace("__", "."), content)
        write(name, buffer.getvalue())

    archive("no_entries.tvmc")
    archive("version.tvmc", model__json='{"format": 999, "tvm": "0.0"}')
    archive("other_json.tvmc", model__json="[1, 2]")
    archive("other_zip.tvmc", hello__txt="hello")
    for name, text in {
        "syntax": "[prune\nratio = 0.5",
        "unknown_table": "[prunes]\nratio = 0.5\n",
        "unknown_field": "[prune]\nratios_of = 0.5\n",
        "wrong_type": '[prune]\nratio = "half"\n',
        "no_table": "prune = 0.5\n",
        "nan": "[prune]\nratio = nan\n",
        "negative": "[prune]\nratio = 0.5\nmin_channels = -3\n",
        "huge": "calibration_samples = 99999999999999999999999999\n[prune]\nratio = 0.5\n",
        "sequence": "[[prune]]\nratio = 0.5\n",
        "layer": "[quantize.layers.stem]\n",
        "duplicate": "[prune]\nratio = 0.5\nratio = 0.6\n",
        "lesser_core": 'name = "mine"\ntitle = "Mine"\nfamily = "cortex-a"\ncore = "cortex-a76"\nemulator_cpu = "cortex-a53"\n'
        'tvm = {kind = "llvm", mtriple = "aarch64-linux-gnu", mcpu = "cortex-a76"}\n',
    }.items():
        write(f"{name}.toml", text)
    write("other.json", '{"a": 1}')
    write("list.json", "[1, 2, 3]")
