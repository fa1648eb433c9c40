"""Models of kinds that give trouble, whole: float as ONNX Runtime computes them, int8 near it, on x86."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import tvmcompress
from tvmcompress.importing import from_onnx

from ..conftest import shared_folder

_FOLDER = (shared_folder() or Path()) / "cases" / "onnx"
_CASES = sorted(path.stem for path in _FOLDER.glob("c*.py"))


def case(name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model of a case file, and data for it."""
    sys.path.insert(0, str(_FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(name, _FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.build()
    finally:
        sys.path.remove(str(_FOLDER))


def expected(proto: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """What ONNX Runtime makes of single samples, one behind the other."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    results = [session.run(None, sample) for sample in samples]
    return [np.concatenate([np.atleast_1d(result[index]) for result in results]) for index in range(len(results[0]))]


def decibels(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal to noise."""
    noise = float(np.square(wanted.astype(np.float64) - found.reshape(wanted.shape)).sum())
    return 10 * np.log10(max(float(np.square(wanted.astype(np.float64)).sum()), 1e-30) / max(noise, 1e-30))


@pytest.mark.shared
@pytest.mark.parametrize("name", _CASES)
def test_case(name: str, tmp_path: Path) -> None:
    proto, data = case(name)
    model = from_onnx(proto)
    inputs = [data[spec.name][:8] for spec in model.inputs]
    samples = [{spec.name: x[index : index + 1] for spec, x in zip(model.inputs, inputs)} for index in range(8)]
    wanted = expected(proto, samples)
    built = tvmcompress.build(model, "x86", tmp_path / "float", tuning_log=False)
    for found in (model.run(*inputs), built.run(inputs)):
        assert min(decibels(w, f) for w, f in zip(wanted, found, strict=True)) > 100
    result = tvmcompress.compress(model, data, quantize="int16x8" if "int16x8" in name else "int8")
    integer = tvmcompress.build(result.model, "x86", tmp_path / "integer", tuning_log=False)
    outputs = integer.run_float(inputs)
    assert min(decibels(w, f) for w, f in zip(wanted, outputs, strict=True)) > 20


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["int8", "uint8", "int16x8"])
def test_scores_beside_boxes(precision: str) -> None:
    """Each part of a joined output is near its original, not only the whole."""
    proto, data = case("c13_yolo_head")
    x = data["x"][:8]
    wanted = expected(proto, [{"x": x[index : index + 1]} for index in range(8)])[0]
    result = tvmcompress.compress(from_onnx(proto), data, quantize=precision)
    found = result.model.run(x)[0]
    assert decibels(wanted[..., :4], found[..., :4]) > 20
    assert decibels(wanted[..., 4:], found[..., 4:]) > 20
    assert not any(remark.pass_name == "output parts" for remark in result.remarks)


@pytest.mark.shared
@pytest.mark.parametrize("name", [name for name in _CASES if name[:3] in ("c02", "c28", "c53")])
def test_case_pruned(name: str) -> None:
    """The default repair ends with a model that computes."""
    proto, data = case(name)
    model = from_onnx(proto)
    pruned = tvmcompress.compress(model, data, prune=0.3).model
    assert sum(value.size for value in pruned.params.values()) < sum(value.size for value in model.params.values())
    outputs = pruned.run(*(data[spec.name][:2] for spec in model.inputs))
    assert all(np.isfinite(output).all() for output in outputs)
