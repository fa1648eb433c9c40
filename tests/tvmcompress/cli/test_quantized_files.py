"""A model that is quantized already is built as it is, whichever kind of file it comes in."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvmcompress
from tests.tvmcompress.cli.running import refused, run
from tvmcompress.exporting import export_onnx


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_quantized_file_is_built(tmp_path: Path, digits: Path, kind: str) -> None:
    path = tmp_path / f"model.{kind}"
    if kind == "tflite":
        pytest.importorskip("tflite")
        pytest.importorskip("ai_edge_litert")
        from tests.tvmcompress.importing.test_tflite import small_network

        path.write_bytes(small_network())
    else:
        result = tvmcompress.compress(digits / "digits.onnx", digits / "digits_calib.npz", quantize="int8")
        assert result.qdq_model is not None
        export_onnx(result.qdq_model, path)
    ran = run("compress", path, "--target", "cortex-m4", "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert [build["target"] for build in ran.json["builds"]] == ["cortex-m4"]
    assert "quantized already" in refused("compress", path, "-o", tmp_path / "again")
