"""Parts of data: spread evenly, disjoint, and without what was seen before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress import UserError, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.data.splits import split, spread, take, without
from tvmcompress.model import InputSpec

SPECS = (InputSpec(name="x", shape=(1, 2)),)


def numbers(count: int) -> Dataset:
    """Samples that hold their number, which is their label too."""
    values = np.arange(count)
    return load_data((np.stack([values, -values], 1).astype(np.float32), values), SPECS)


@given(st.integers(2, 60), st.floats(0.01, 0.99))
def test_two_parts_are_the_whole(count: int, fraction: float) -> None:
    data = numbers(count)
    if not 0 < round(count * fraction) < count:
        with pytest.raises(UserError, match="leaves one part empty"):
            split(data, fraction)
        return
    parts = split(data, fraction)
    assert len(parts[0]) == round(count * fraction)
    for part in parts:
        assert part.labels is not None
        assert list(part.labels) == sorted(part.labels)
        np.testing.assert_array_equal(part.inputs()[0][:, 0], part.labels)
    assert sorted(np.concatenate([part.labels for part in parts])) == list(range(count))  # type: ignore[list-item]


def test_spread_evenly_over_sorted_files() -> None:
    part = spread(numbers(100), 10)
    assert part.labels is not None
    assert list(np.diff(part.labels)) == [10] * 9
    assert spread(part, 11) is part


def test_what_was_seen_is_left_out() -> None:
    data, seen = numbers(20), take(numbers(30), np.array([3, 7, 25]))
    left = without(data, seen)
    assert left.labels is not None
    assert sorted(left.labels) == sorted(set(range(20)) - {3, 7})
    assert without(left, seen) is left
    assert len(without(seen, seen)) == 0


def test_a_folder_of_files(tmp_path: Path) -> None:
    for number in range(6):
        np.save(tmp_path / f"{number}.npy", np.full(2, number, np.float32))
    first, rest = split(load_data(tmp_path, SPECS), 0.5)
    np.testing.assert_array_equal(first.inputs()[0][:, 0], [0, 2, 4])
    np.testing.assert_array_equal(rest.inputs()[0][:, 0], [1, 3, 5])
