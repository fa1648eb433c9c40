"""Observers and their histogram."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tvmcompress.passes import Range, UserError, list_observers
from tvmcompress.passes.numbers.histogram import Histogram
from tvmcompress.passes.quantization.observers import make_observer


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


@given(
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 300), max_size=4),
    scales=st.lists(st.sampled_from([0.0, 1e-30, 0.3, 1.0, 70.0]), min_size=5, max_size=5),
)
@settings(max_examples=50, deadline=None)
def test_histogram_does_not_depend_on_the_division_into_batches(seed: int, cuts: list[int], scales: list[float]) -> None:
    values = np.random.default_rng(seed).standard_normal(300).astype(np.float32)
    parts = [part * np.float32(scale) for part, scale in zip(np.split(values, sorted(cuts)), scales)]
    whole, added, merged = Histogram(), Histogram(), Histogram()
    whole.add(np.concatenate(parts))
    for part in parts[::-1]:
        added.add(part)
        alone = Histogram()
        alone.add(part)
        merged.merge(alone)
    for other in (added, merged):
        assert (other.low, other.high, other.count, other.zeros) == (whole.low, whole.high, whole.count, whole.zeros)
        for one, two in zip(whole.bins(), other.bins()):
            np.testing.assert_array_equal(one, two)


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


def _samples(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.standard_normal(60_000),
        "laplace": rng.laplace(size=60_000),
        "heavy": rng.standard_t(4, size=60_000),
        "relu": np.maximum(rng.standard_normal(60_000) - 0.5, 0),
        "outlier": np.append(rng.standard_normal(60_000), 40.0),
    }
    return values[kind].astype(np.float32)


KINDS = ["normal", "laplace", "heavy", "relu", "outlier"]


def test_moving_average_in_closed_form() -> None:
    """After n batches the k-th weighs m (1 - m)^(n - k), the first (1 - m)^(n - 1)."""
    ends = np.random.default_rng(1).uniform(1, 2, 9).astype(np.float32)
    found = _seen("moving_average", *[np.array([-2 * end, end]) for end in ends], momentum=0.3)
    weights = np.array([0.7**8] + [0.3 * 0.7 ** (8 - k) for k in range(1, 9)])
    assert found.high == pytest.approx(weights @ ends)
    assert found.low == pytest.approx(-2 * weights @ ends)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_percentile_is_numpy_s(kind: str, percentile: float) -> None:
    values = _samples(kind)
    found = _seen("percentile", *np.array_split(values, 7), percentile=percentile)
    seen = values[values != 0]
    bin_width = float(2 * np.abs(values).max() / 2048)
    for end, share in ((found.high, percentile), (found.low, 100 - percentile)):
        # Between two values there is nothing to know.
        below, above = (float(np.percentile(seen, share, method=method)) for method in ("lower", "higher"))
        assert below - bin_width <= end <= above + bin_width


@pytest.mark.parametrize("kind", KINDS)
def test_mse_is_near_the_best_of_all_ranges(kind: str) -> None:
    values = _samples(kind)

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero = np.rint(-low / scale)
        integers = np.clip(np.rint(values / scale) + zero, 0, 255)
        return float(np.square((integers - zero) * scale - values, dtype=np.float64).mean())

    found = _seen("mse", *np.array_split(values, 5))
    grid = np.linspace(0.04, 1, 25)
    low, high = min(float(values.min()), 0.0), float(values.max())
    lows = [low * f for f in grid] if low < 0 else [0.0]
    best = min(error(a, high * f) for a in lows for f in grid)
    assert error(found.low, found.high) <= 1.05 * best


def _divergence(values: np.ndarray, limit: float, width: float) -> float:
    """Kullback-Leibler divergence of 256 levels from bins of `width`, by the book (Migacz, 2017)."""
    low, high = max(values.min(), -limit), min(values.max(), limit)
    count = max(round((high - low) / width), 1)
    clipped, _ = np.histogram(np.clip(values, low, high), count, (low, high))
    inside, _ = np.histogram(values[(values >= low) & (values <= high)], count, (low, high))
    spread = np.zeros(count)
    for part in np.array_split(np.arange(count), min(256, count)):
        held = part[inside[part] > 0]
        spread[held] = inside[part].sum() / max(held.size, 1)
    where = clipped > 0
    return float(stats.entropy(clipped[where], np.maximum(spread[where], 1e-12)))


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_is_near_the_least_divergence(kind: str) -> None:
    values = _samples(kind)
    found = _seen("entropy", *np.array_split(values, 5))
    seen = values[values != 0]
    largest = float(np.abs(seen).max())
    width = largest / 2048
    best = min(_divergence(seen, limit, width) for limit in largest * np.linspace(0.1, 1, 60))
    assert _divergence(seen, max(-found.low, found.high), width) <= 1.5 * best + 1e-3


@pytest.mark.parametrize("name", ["minmax", "moving_average", "percentile", "mse", "entropy"])
def test_memory_does_not_grow(name: str) -> None:
    observer = make_observer(name)
    sizes = []
    for count in (2, 60):
        for seed in range(count):
            observer.update(np.random.default_rng(seed).standard_normal(500).astype(np.float32) * (1 + seed))
        sizes.append(len(pickle.dumps(observer)))
    assert sizes[1] <= sizes[0] + 64


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
