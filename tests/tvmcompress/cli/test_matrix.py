"""Benchmark as a matrix: models, variants and targets; goes on where it was; other runtimes beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tvmcompress.cli.running import refused, run
from tvmcompress.measuring import benchmarking
from tvmcompress.measuring.runtimes import _in_turns, check_runtimes
from tvmcompress.targets.measurement import Latency


@pytest.fixture
def data(digits: Path, tmp_path: Path) -> tuple[Any, ...]:
    """A few samples, as options."""
    for name, count in (("calib", 20), ("test", 40)):
        with np.load(digits / f"digits_{name}.npz") as arrays:
            np.savez(tmp_path / f"{name}.npz", **{key: value[:count] for key, value in arrays.items()})
    return ("--calib", tmp_path / "calib.npz", "--eval", tmp_path / "test.npz")


def recipe(folder: Path, name: str, text: str) -> Path:
    """A recipe in a file."""
    (folder / f"{name}.toml").write_text(text)
    return folder / f"{name}.toml"


def test_models_and_variants(digits: Path, tmp_path: Path, data: tuple[Any, ...]) -> None:
    half = recipe(tmp_path, "half", "[prune]\nratio = 0.5\n")
    int8 = recipe(tmp_path, "int8", "[quantize]\n")
    (tmp_path / "other.onnx").write_bytes((digits / "digits.onnx").read_bytes())
    ran = run(
        "benchmark", digits / "digits.onnx", tmp_path / "other.onnx", "--variant", half, "--variant", int8, *data,
        "-t", "x86", "--runs", 3, "--warmup", 1, "--percentile", 99, "-o", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "99 %" in ran.out
    names = [f"{model} {version}" for model in ("digits", "other") for version in ("original", "half", "int8")]
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(name in page for name in names)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(name.replace(" ", "-") for name in names), "manifest.json", "report.html", "report.json",
    }  # fmt: skip


def test_each_step_alone_of_several_models(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes((digits / "digits.onnx").read_bytes())
    given = ("--prune", 0.5, "--no-repair", "--runs", 1, "--json")
    found = run("benchmark", digits / "digits.onnx", tmp_path / "other.onnx", *given).json
    assert [model["name"] for model in found["models"]] == [
        "digits original", "digits pruned", "other original", "other pruned",
    ]  # fmt: skip
    assert found["models"][1]["macs"] == found["models"][3]["macs"] < found["models"][2]["macs"]


def test_it_goes_on(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the log is not built again; failures, other options and a line that was cut off are."""
    log = tmp_path / "log.jsonl"
    built: list[str] = []
    real = benchmarking.build

    def build(model: Any, target: str, *args: Any, **options: Any) -> Any:
        built.append(target)
        if len(built) == 1:
            raise KeyboardInterrupt
        return real(model, target, *args, **options)

    monkeypatch.setattr(benchmarking, "build", build)
    given = ("benchmark", digits / "digits.onnx", "--log", log, "--json")
    assert run(*given, "--runs", 3).code == 130
    first = run(*given, "--runs", 3)
    assert first.code == 0, first.err
    again = run(*given, "--runs", 3)
    assert len(built) == 2
    assert again.json["builds"] == first.json["builds"]
    run(*given, "--runs", 4)
    assert len(built) == 3
    log.write_text(log.read_text()[:-20])
    run(*given, "--runs", 4)
    assert len(built) == 4
    assert len(log.read_text().splitlines()) == 2
    log.write_text("{}\n{}\n")
    assert "holds no measurements (line 1)" in refused(*given)


def test_every_run_is_in_the_json(digits: Path) -> None:
    ran = run("benchmark", digits / "digits.onnx", "--runs", 7, "--warmup", 0, "--json")
    latency = ran.json["builds"][0]["measurement"]["latency"]
    assert len(latency["samples_ms"]) == latency["runs"] == 7
    assert latency["median_ms"] == pytest.approx(np.median(latency["samples_ms"]), rel=1e-5)
    longer = run("benchmark", digits / "digits.onnx", "--runs", 5, "--duration", 0.2, "--json")
    latency = longer.json["builds"][0]["measurement"]["latency"]
    assert latency["runs"] > 5
    assert latency["runs"] % 5 == 0
    found = Latency.of([3.0, 1.0, 2.0])
    assert (found.median_ms, found.percentile(100), found.runs) == (2.0, 3.0, 3)
    assert found.model_copy(update={"samples_ms": ()}).percentile(99) is None


def test_other_runtimes(digits: Path, tmp_path: Path, data: tuple[Any, ...]) -> None:
    """ONNX Runtime computes what we do, of float models and of ours in QDQ form; a runtime that cannot says why."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    ran = run(
        "benchmark", digits / "digits.onnx", "--variant", recipe(tmp_path, "int8", "[quantize]\n"), *data,
        "--runs", 10, "--compare", "onnxruntime,litert", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    original, int8 = ran.json["builds"]
    for build, most in ((original, 1e-3), (int8, 1.0)):
        other, litert = build["runtimes"]
        assert (other["runtime"], other["problem"]) == ("onnxruntime", None)
        assert 0 <= other["largest_error"] <= most
        assert len(other["latency"]["samples_ms"]) == len(build["measurement"]["latency"]["samples_ms"]) == 10
        assert "takes .tflite files" in litert["problem"]
    shown = run("benchmark", digits / "digits.onnx", "--runs", 10, "--compare", "onnxruntime").out
    assert "in turns with ours" in shown


def test_litert_takes_tflite_files(tmp_path: Path) -> None:
    """Its own int8 kernels beside ours, on the same file, within a step of each other."""
    pytest.importorskip("tflite")
    pytest.importorskip("ai_edge_litert")
    from tests.tvmcompress.importing.tflite_files import File

    file = File()
    x, y = file.input((1, 4), scale=0.5), file.input((1, 4), scale=0.25)
    out = file.tensor((1, 4), scale=0.5)
    file.operator("ADD", [x, y], [out], "AddOptions")
    (tmp_path / "sum.tflite").write_bytes(file.bytes(out))
    ran = run("benchmark", tmp_path / "sum.tflite", "--runs", 20, "--compare", "litert,onnxruntime", "--json")
    assert ran.code == 0, ran.err
    (build,) = ran.json["builds"]
    litert, other = build["runtimes"]
    assert (litert["runtime"], litert["problem"]) == ("litert", None)
    assert litert["largest_error"] <= 1
    assert len(litert["latency"]["samples_ms"]) == 20
    assert "takes .onnx files" in other["problem"]


def test_openvino(digits: Path) -> None:
    pytest.importorskip("openvino")
    found = run("benchmark", digits / "digits.onnx", "--runs", 10, "--compare", "openvino", "--json").json
    (other,) = found["builds"][0]["runtimes"]
    assert (other["runtime"], other["problem"]) == ("openvino", None)
    assert 0 <= other["largest_error"] <= 1e-3
    assert len(other["latency"]["samples_ms"]) == 10


def test_turns_are_fair() -> None:
    """All run alike often, ten times in a row, and each is first in its turn."""
    order: list[str] = []
    callers = {name: (lambda name=name: order.append(name)) for name in ("", "a", "b")}
    times = _in_turns(callers, runs=30, warm_up=1, duration=None)
    assert {name: len(found) for name, found in times.items()} == {"": 30, "a": 30, "b": 30}
    assert order[:3] == ["", "a", "b"]
    assert [order[3 + 30 * turn] for turn in range(3)] == ["", "a", "b"]


def test_what_says_nothing(digits: Path, tmp_path: Path) -> None:
    given = ("benchmark", digits / "digits.onnx")
    assert "there is no runtime 'tensorrt'" in refused(*given, "--compare", "tensorrt")
    half = recipe(tmp_path, "half", "[prune]\n")
    assert "takes the place" in refused(*given, "--variant", half, "--prune", 0.5)
    assert "does nothing" in refused(*given, "--variant", recipe(tmp_path, "empty", ""))
    check_runtimes([])
