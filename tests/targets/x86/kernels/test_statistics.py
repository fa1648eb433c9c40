"""The operator that counts a tensor, against the histogram in NumPy."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.numbers.histogram import Histogram
from tvmcompress.targets import get_target
from tvmcompress.targets.x86.host import tvm_target
from tvmcompress.targets.x86.kernels.statistics import as_histogram, statistics_function

pytestmark = pytest.mark.skipif(bool(get_target("x86").missing_tools()), reason="needs an x86 machine and a C++ compiler")

SHAPES = [(), (1,), (15,), (16,), (2, 3, 7), (511,), (1, 8, 64), (3, 1027)]


@cache
def _function(axes: int, counted: bool = True) -> object:
    made = statistics_function(axes, counted).with_attr("global_symbol", "main")
    return tvm.compile(tvm.IRModule({"main": made}), target=tvm_target("native", 1))["main"]


def _counted(values: np.ndarray, counted: bool = True) -> Histogram | None:
    result = tvm.runtime.tensor(np.full(4101, 77, np.int32))
    _function(values.ndim, counted)(tvm.runtime.tensor(values), result)  # type: ignore[operator]
    return as_histogram(result.numpy())


@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 10_000),
    power=st.integers(-44, 37),
    zeros=st.sampled_from([0, 0.5, 1]),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_numpy_s(shape: tuple[int, ...], seed: int, power: int, zeros: float) -> None:
    rng = np.random.default_rng(seed)
    values = np.asarray(rng.standard_normal(shape) * 10.0**power, np.float32)
    values = np.where(rng.random(shape) < zeros, np.float32(0), values)
    found, wanted = _counted(values), Histogram()
    wanted.add(values)
    assert found is not None
    assert (found.low, found.high, found.count, found.zeros) == (wanted.low, wanted.high, wanted.count, wanted.zeros)
    for one, other in zip(found.bins(), wanted.bins()):
        np.testing.assert_array_equal(one, other)


def test_values_at_the_edges_of_bins() -> None:
    values = np.array([-1.0, -0.5, -(2.0**-11), -0.0, 0.0, 2.0**-11, 0.5, np.nextafter(np.float32(1), 0), 1.0], np.float32)
    found, wanted = _counted(values), Histogram()
    wanted.add(values)
    assert found is not None
    np.testing.assert_array_equal(found.bins(), wanted.bins())
    assert found.zeros == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 13, 30])
def test_values_that_are_not_finite_are_found(value: float, place: int) -> None:
    values = np.zeros(31, np.float32)
    values[place] = value
    assert _counted(values) is None
    assert _counted(values, counted=False) is None


def test_extremes_alone() -> None:
    values = np.array([3.0, -2.5] * 20, np.float32)
    found = _counted(values, counted=False)
    assert found is not None
    assert (found.ends, found.count, found.bins()[1].size) == ((-2.5, 3.0), 40, 0)
