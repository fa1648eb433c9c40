"""Scales and zero points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import Affine, Range
from tvmcompress.passes.numbers.affine import affine_of_range, power_of_two

END = st.floats(-1e6, 1e6, width=32)


@given(a=END, b=END, dtype=st.sampled_from(["int8", "uint8", "int16"]))
@settings(max_examples=300, deadline=None)
def test_the_range_is_covered_and_zero_is_exact(a: float, b: float, dtype: str) -> None:
    low, high = min(a, b), max(a, b)
    affine = affine_of_range(Range(low, high), dtype)
    info = np.iinfo(dtype)
    assert info.min <= affine.zero_point <= info.max
    assert affine.dequantize(affine.quantize(np.zeros(1)))[0] == 0.0
    # Half a step for the rounding of the zero point, half for that of the value.
    for value in (low, high, (low + high) / 2):
        error = abs(float(affine.dequantize(affine.quantize(np.array([value])))[0]) - np.float32(value))
        assert error <= affine.scale * 1.001 + 1e-6 * abs(value)


@given(limit=st.floats(1e-3, 1e6))
@settings(max_examples=50, deadline=None)
def test_symmetric(limit: float) -> None:
    signed = affine_of_range(Range(-limit / 3, limit), "int8", symmetric=True)
    assert signed.zero_point == 0
    assert signed.quantize(np.array([limit, -limit])).tolist() == [127, -127]
    unsigned = affine_of_range(Range(-limit / 3, limit), "uint8", symmetric=True)
    assert unsigned.zero_point == 128
    assert unsigned.quantize(np.array([limit]))[0] == 255


def test_nothing_but_zero() -> None:
    assert affine_of_range(Range(0.0, 0.0)) == Affine(1.0, 0)
    tiny = affine_of_range(Range(0.0, 1e-300))
    assert tiny.scale > 0
    assert np.isfinite(tiny.quantize(np.array([1e-30]))).all()


def test_a_constant() -> None:
    affine = affine_of_range(Range(3.0, 3.0))
    assert affine.dequantize(affine.quantize(np.array([3.0])))[0] == pytest.approx(3.0, rel=1e-6)


def test_limits_of_a_clip() -> None:
    affine = Affine(0.1, -128)
    assert affine.clip_limits(0.0, 6.0) == (-128, -68)
    assert affine.clip_limits(-np.inf, np.inf) == (-128, 127)
    # A half rounds away from zero; an upper end below the lower one is raised to it.
    assert Affine(1.0, 0).clip_limits(-0.5, 0.5) == (-1, 1)
    assert affine.clip_limits(100.0, 200.0) == (127, 127)


@pytest.mark.parametrize("bad", [(np.nan, 1.0), (0.0, np.inf), (2.0, 1.0)])
def test_no_range(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Range(*bad)


@given(a=END, b=END, dtype=st.sampled_from(["int8", "uint8", "int16"]), symmetric=st.booleans())
@settings(max_examples=200, deadline=None)
def test_scales_that_are_powers_of_two(a: float, b: float, dtype: str, symmetric: bool) -> None:
    found = Range(min(a, b), max(a, b))
    free, bound = (affine_of_range(found, dtype, symmetric, shift_only=only) for only in (False, True))
    assert np.log2(bound.scale) == np.rint(np.log2(bound.scale))
    assert 1 - 1e-6 <= bound.scale / free.scale < 2
    limits = np.array([found.low, found.high, 0.0])
    error = np.abs(bound.dequantize(bound.quantize(limits)) - limits.astype(np.float32))
    assert (error <= bound.scale * 1.001 + 1e-6 * np.abs(limits)).all()
    assert error[2] == 0


def test_a_power_of_two_stays_what_it_is() -> None:
    exact = 2.0 ** np.arange(-30, 30)
    np.testing.assert_array_equal(power_of_two(exact), exact)
    np.testing.assert_array_equal(power_of_two(exact * 1.0001), 2 * exact)
    np.testing.assert_array_equal(power_of_two(exact * 0.9999), exact)
