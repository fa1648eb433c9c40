"""Calibration samples far apart from the others are named; data that is merely spread is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress import InputSpec, load_data
from tvmcompress.data.outliers import outlier_remarks

IMAGE = InputSpec(name="image", shape=(1, 3, 4, 5), layout="NCHW")


def remarks(x: np.ndarray) -> list[str]:
    return [remark.message for remark in outlier_remarks(load_data(x, (IMAGE,)))]


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 4, 5)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 150), st.data())
def test_one_wild_value_is_named(count: int, data: st.DataObject) -> None:
    index, sign = data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from([-1, 1]))
    x = normal(count)
    x[index, 1, 2, 3] = sign * 1e6
    (message,) = remarks(x)
    assert message.startswith(f"sample {index} (up to 1e+06)")


def test_several_are_counted() -> None:
    x = normal(300)
    x[[3, 8, 13, 21, 34, 55], 0, 0, 0] = 1e6
    assert remarks(x)[0].startswith("samples 3 (up to 1e+06), 8 (up to 1e+06), 13 (up to 1e+06) and 3 more of")


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_all_samples_do_is_no_outlier(scale: float) -> None:
    x = normal(100) * np.float32(scale)
    x[:, 0, 0, 0] *= 1e4  # a quantity of another unit, in all of them
    x[0] *= 50
    assert remarks(x) == []


def test_silence_beside_a_signal_is_no_outlier() -> None:
    x = normal(100)
    x[:60] = 0
    assert remarks(x) == []
    x[:48] = 1
    assert remarks(x) == []
