"""Options of the microcontrollers on the command line: patches, C source, the memory map."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.tvmcompress.cli.running import run
from tvmcompress.targets.registry import get_target

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")


def test_patches_and_c_source(digits: Path, tmp_path: Path) -> None:
    asked = (digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 40, "--quantize", "int8")
    folder = tmp_path / "out"
    ran = run("compress", *asked, "-t", "cortex-m4", "--patch-wise", "--emit", "c", "-o", folder)
    assert ran.code == 0, ran.err
    (build,) = json.loads((folder / "report.json").read_text())["builds"]
    measured = build["measurement"]
    assert (build["largest_error"], build["checked_samples"]) == (0, 8)
    # The memory map: code, constants, arena, its bound, stack.
    row = re.search(r"compressed +cortex-m4 +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)", ran.out)
    assert row is not None
    names = ("code_bytes", "constant_bytes", "arena_bytes", "arena_lower_bound", "stack_bytes")
    assert [int(cell.replace(",", "")) for cell in row.groups()] == [measured[name] for name in names]
    patches = measured["patches"]
    assert measured["arena_bytes"] < patches["whole_arena_bytes"]
    assert f"run in {patches['strips']} patches" in " ".join(ran.out.split())
    assert not list((folder / "cortex-m4").glob("*.o"))
    kernels = (folder / "cortex-m4" / "model_kernels.c").read_text()
    assert "tvm" not in kernels.lower()
    shown = run("run", folder, "-t", "cortex-m4", "--emulator")
    assert shown.code == 0, shown.err
    assert f"code {measured['code_bytes']:,}, constants {measured['constant_bytes']:,}" in shown.out


def test_flash_spent_for_instructions(digits: Path, tmp_path: Path) -> None:
    asked = (digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 40, "--quantize", "int8")
    measured = []
    for index, options in enumerate(((), ("--spend-flash", "64K"))):
        folder = tmp_path / str(index)
        ran = run("compress", *asked, "-t", "cortex-m4", *options, "-o", folder)
        assert ran.code == 0, ran.err
        (build,) = json.loads((folder / "report.json").read_text())["builds"]
        assert build["largest_error"] == 0
        measured.append(build["measurement"])
    frugal, lavish = measured
    assert lavish["constant_bytes"] > frugal["constant_bytes"]
    assert lavish["instructions"] < frugal["instructions"]


def test_sparse_weights_take_less_flash(digits: Path, tmp_path: Path) -> None:
    asked = (digits / "digits.onnx", "--calib", digits / "digits_calib.npz", "--calib-samples", 40, "--quantize", "int8")
    measured = []
    for index, options in enumerate((("--dense-weights",), ("--sparse-weights",))):
        folder = tmp_path / str(index)
        ran = run("compress", *asked, "--sparsify", "2:4", "-t", "cortex-m4", *options, "-o", folder)
        assert ran.code == 0, ran.err
        (build,) = json.loads((folder / "report.json").read_text())["builds"]
        assert build["largest_error"] == 0
        measured.append(build["measurement"])
    dense, sparse = measured
    assert sparse["constant_bytes"] < 0.8 * dense["constant_bytes"]
