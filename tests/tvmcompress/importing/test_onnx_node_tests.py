"""ONNX's own node tests, a sample; `benchmarks/onnx_node_tests.py` has all of them, built for x86, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "onnx_node_tests.py"


def test_every_operator_is_right_or_refused() -> None:
    command = [sys.executable, str(_BENCHMARK), "--every", "37", "--no-build"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
