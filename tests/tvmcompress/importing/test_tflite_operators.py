"""Every kind of TFLite operator over drawn shapes, scales and options, against LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("tflite")
pytest.importorskip("ai_edge_litert")

from tvmcompress.importing.tflite import load_tflite

from .tflite_files import litert
from .tflite_operators import FLOAT, INT8, INT16, INT16_NEAR, NEAR, NO_REFERENCE, Made, Maker

Make = Callable[[Maker], Made]


class HypothesisDraw:
    """Numbers that hypothesis draws, and shrinks."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def integer(self, low: int, high: int) -> int:
        return int(self._data.draw(st.integers(low, high)))


def results(path: Path, kind: str, make: Make, dtype: str, data: st.DataObject) -> list[tuple[np.ndarray, np.ndarray]]:
    """What we make of a drawn file, and what LiteRT does; nothing where LiteRT cannot run it."""
    made = make(Maker(HypothesisDraw(data), dtype))
    try:
        wanted = litert(made.content, *made.inputs, reference=kind not in NO_REFERENCE)
    except (RuntimeError, ValueError):
        return []
    path.write_bytes(made.content)
    found = load_tflite(path).run(*made.inputs)
    assert [(f.shape, f.dtype) for f in found] == [(w.shape, w.dtype) for w in wanted]
    return list(zip(found, wanted))


def quick(examples: int) -> settings:
    """Few examples, the same ones every time: the benchmark tries more."""
    return settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )


@pytest.mark.parametrize("kind", INT8)
@quick(5)
@given(data=st.data())
def test_int8_bytes(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    for found, wanted in results(tmp_path / "m.tflite", kind, INT8[kind], "int8", data):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", INT16)
@quick(2)
@given(data=st.data())
def test_int16_bytes(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    for found, wanted in results(tmp_path / "m.tflite", kind, INT16[kind], "int16", data):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("dtype", "kind"), [("int8", kind) for kind in NEAR] + [("int16", kind) for kind in INT16_NEAR])
@quick(3)
@given(data=st.data())
def test_without_an_exact_form_within_a_step(tmp_path: Path, dtype: str, kind: str, data: st.DataObject) -> None:
    make = (NEAR if dtype == "int8" else INT16_NEAR)[kind]
    for found, wanted in results(tmp_path / "m.tflite", kind, make, dtype, data):
        assert np.abs(found.astype(int) - wanted).max() <= (1 if dtype == "int8" else 4)


@pytest.mark.parametrize("kind", FLOAT)
@quick(2)
@given(data=st.data())
def test_float_values(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    for found, wanted in results(tmp_path / "m.tflite", kind, FLOAT[kind], "float32", data):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
