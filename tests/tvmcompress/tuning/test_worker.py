"""The comparison with the reference, and the log's treatment of damage."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.tuning.worker import difference


def test_integers_must_be_equal() -> None:
    expected = np.arange(6, dtype=np.int8)
    got = expected.copy()
    assert difference(got, expected, 1e-4) is None
    got[2] += 1
    assert difference(got, expected, 1.0) == "1 of 6 integers differ from the reference"


def test_floats_may_differ_relative_to_the_largest() -> None:
    expected = np.array([1000.0, 1.0], "float32")
    assert difference(expected + np.float32(0.05), expected, 1e-4) is None
    assert "largest error" in difference(expected + np.float32(0.2), expected, 1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_output_that_was_not_written_is_seen(bad) -> None:
    expected = np.zeros(3, "float32")
    got = np.array([0.0, bad, 0.0], "float32")
    assert "NaN" in difference(got, expected, 1e-4)
    assert difference(got, got.copy(), 1e-4) is None
