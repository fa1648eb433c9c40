"""Observers and their histogram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import Range, UserError, list_observers
from tvmcompress.passes.histogram import Histogram
from tvmcompress.passes.observers import make_observer


def _seen(name: str, *batches: np.ndarray, **options: float) -> Range:
    observer = make_observer(name, **options)
    for batch in batches:
        observer.update(batch.astype(np.float32))
    return observer.range()


@given(seed=st.integers(0, 10_000), growth=st.sampled_from([1.0, 7.3, 1000.0]))
@settings(max_examples=50, deadline=None)
def test_histogram_counts_everything_while_it_grows(seed: int, growth: float) -> None:
    rng = np.random.default_rng(seed)
    histogram = Histogram(bins=64)
    parts = [(rng.standard_normal(200) * growth**k).astype(np.float32) for k in range(4)]
    for part in parts:
        histogram.add(part)
    values = np.sort(np.concatenate(parts))
    centres, counts = histogram.bins()
    assert counts.sum() + histogram.zeros == values.size == histogram.count
    assert (histogram.low, histogram.high) == (values[0], values[-1])
    width = 2 * np.abs(values).max() / 64  # a bin is at most twice as wide as needed
    for fraction in (0.1, 0.5, 0.9):
        exact = values[int(fraction * values.size)]
        assert abs(histogram.quantile(fraction) - exact) <= 2 * width
    assert len(centres) <= 128


def test_min_max() -> None:
    assert _seen("minmax", np.array([1.0, 2.0]), np.array([-3.0, 0.5])) == Range(-3.0, 2.0)


def test_moving_average() -> None:
    found = _seen("moving_average", np.array([0.0, 1.0]), np.array([0.0, 2.0]), momentum=0.5)
    assert found == Range(0.0, 1.5)


def test_percentile_leaves_out_outliers() -> None:
    values = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 100_000), [500.0]])
    found = _seen("percentile", values, percentile=99.9)
    assert found.high < 1.5
    assert found.low > -1.5
    assert _seen("percentile", values, percentile=100).high == 500.0


def test_percentile_of_a_tensor_that_is_nearly_always_zero() -> None:
    values = np.zeros(100_000)
    values[0] = 4.0
    assert _seen("percentile", values).high == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("name", ["mse", "entropy"])
def test_clipping_observers_beat_min_max_with_an_outlier(name: str) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(1_000_000), [40.0]]).astype(np.float32)
    found = _seen(name, values)
    assert found.high < 36.0

    def error(within: Range) -> float:
        scale = (within.high - within.low) / 255
        clipped = np.clip(values, within.low, within.high)
        return float(np.square(np.rint(clipped / scale) * scale - values).mean())

    if name == "mse":
        assert error(found) <= error(Range(float(values.min()), float(values.max())))


@pytest.mark.parametrize("name", ["minmax", "moving_average", "percentile", "mse", "entropy"])
@pytest.mark.parametrize("value", [0.0, 2.5, -1.0])
def test_constant_tensors(name: str, value: float) -> None:
    found = _seen(name, np.full(1000, value), np.full(10, value))
    assert found.low <= value <= found.high or np.isclose(value, [found.low, found.high]).any()


@pytest.mark.parametrize("name", ["minmax", "moving_average", "percentile", "mse", "entropy"])
def test_an_observer_that_saw_nothing(name: str) -> None:
    assert make_observer(name).range() == Range(0.0, 0.0)
    assert name in list_observers()


def test_wrong_names_and_options() -> None:
    with pytest.raises(UserError, match="no observer 'best'"):
        make_observer("best")
    with pytest.raises(UserError, match="does not take"):
        make_observer("minmax", percentile=3)
    with pytest.raises(UserError, match="percentile must be"):
        make_observer("percentile", percentile=101)
    with pytest.raises(UserError, match="momentum"):
        make_observer("moving_average", momentum=0)
