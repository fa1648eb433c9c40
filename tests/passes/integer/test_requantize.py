"""Requantization against Python integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import te
from tvmcompress.passes.integer.requantize import (
    multiply,
    quantize_multiplier,
    quantize_multipliers,
    reduce_multiplier,
    requantize,
    te_multiply,
)

from . import exact, running

INT32 = st.integers(-(2**31), 2**31 - 1)
MULTIPLIER = st.one_of(st.integers(2**30, 2**31 - 1), st.sampled_from([0, 2**30, 2**31 - 1]))


@pytest.mark.parametrize("rounding", ["double", "single"])
@given(x=INT32, multiplier=MULTIPLIER, shift=st.integers(-31, 30))
@settings(max_examples=300, deadline=None)
def test_multiply_is_exact(rounding: str, x: int, multiplier: int, shift: int) -> None:
    found = multiply(np.array([x]), multiplier, shift, rounding)
    if rounding == "double" or shift < 8:  # beyond, the product itself leaves int64
        assert found[0] == exact.multiply(x, multiplier, shift, rounding)


def test_the_two_roundings_differ() -> None:
    """3 / 8 = 0.375: halved to 1.5 and rounded to 2, then 2 / 4 is rounded to 1; in one step it is 0."""
    x, (multiplier, shift) = np.array([3]), quantize_multiplier(2.0**-3)
    assert multiply(x, multiplier, shift, "double")[0] == 1
    assert multiply(x, multiplier, shift, "single")[0] == 0


@pytest.mark.parametrize("rounding", ["double", "single"])
@given(factor=st.floats(1e-9, 1000.0))
@settings(max_examples=200, deadline=None)
def test_quantize_multiplier_is_close(rounding: str, factor: float) -> None:
    multiplier, shift = quantize_multiplier(factor, rounding)
    assert 0 < multiplier < 2**31
    assert math.isclose(
        multiplier * 2.0 ** (shift - 31), factor, rel_tol=2.0**-17 if rounding == "single" else 2.0**-31
    )


def test_quantize_multiplier_values() -> None:
    assert quantize_multiplier(0.0) == (0, 0)
    assert quantize_multiplier(1.0) == (2**30, 1)
    assert quantize_multiplier(0.5) == (2**30, 0)
    assert quantize_multiplier(2.0**-40) == (0, 0)
    # Just below a power of two the mantissa rounds up into the next one.
    assert quantize_multiplier(1.0 - 2.0**-40) == (2**30, 1)
    assert quantize_multiplier(0.25, "single") == (2**30, -1)
    for bad in (-1.0, math.inf, math.nan, 2.0**31):
        with pytest.raises(ValueError, match="factor"):
            quantize_multiplier(bad)
    multipliers, shifts = quantize_multipliers([0.5, 0.1])
    assert multipliers.dtype == shifts.dtype == np.int32
    assert shifts.tolist() == [0, -3]


def test_requantize_clips() -> None:
    multiplier, shift = quantize_multiplier(0.5)
    acc = np.array([-(2**31), -3, -1, 0, 1, 3, 2**31 - 1])
    assert requantize(acc, multiplier, shift, 5, -128, 127, "double").tolist() == [-128, 4, 5, 5, 6, 7, 127]
    assert requantize(acc, multiplier, shift, 5, 0, 6, "double").tolist() == [0, 4, 5, 5, 6, 6, 6]


@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize("max_shift", [0, 7])
def test_compiled_equals_python(rounding: str, max_shift: int) -> None:
    rng = np.random.default_rng(3)
    count = 4000
    x = np.concatenate(
        [
            rng.integers(-(2**31), 2**31, count // 2),
            rng.integers(-3000, 3000, count // 4),
            rng.integers(-2000, 2000, count // 4 - 4) << rng.integers(0, 16, count // 4 - 4),
            [-(2**31), 2**31 - 1, 0, -1],
        ]
    ).astype(np.int32)
    multiplier = rng.choice([2**30, 2**31 - 1, 0, *rng.integers(2**30, 2**31, 9).tolist()], count).astype(np.int32)
    shift = rng.integers(-31, max_shift + 1, count).astype(np.int32)

    def build(*args: object) -> object:
        def definition(a: te.Tensor, q: te.Tensor, s: te.Tensor) -> te.Tensor:
            return te.compute(a.shape, lambda i: te_multiply(a[i], q[i], s[i], rounding, max_shift).astype("int64"))

        return running.relax.BlockBuilder.current().call_te(definition, *args)

    inputs = [x, multiplier, shift]
    found = running.compiled(running.module(build, inputs), inputs)[0]
    expected = [exact.multiply(int(a), int(q), int(s), rounding) for a, q, s in zip(*inputs)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shift", range(-6, 1))
def test_halves_round_away_from_zero_in_the_second_step(shift: int) -> None:
    """Of small sums every second is a half after the first step, and every few of these one again."""
    x = np.arange(-600, 601)
    wanted = [exact.multiply(int(value), 2**30, shift, "double") for value in x]
    assert multiply(x, 2**30, shift, "double").tolist() == wanted
    if shift < -1:
        # The first step rounds half up, the second away from zero: -5 / 2 is -2, and -2 / 4 is -1.
        assert multiply(np.array([-5, 4]), 2**30, -2, "double").tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("multiplier", "reduced"),
    [(0x40000000, 0x4000), (0x40007FFF, 0x4000), (0x40008000, 0x4001), (0x40017FFF, 0x4001), (0x7FFEFFFF, 0x7FFF),
     (0x7FFF0000, 0x7FFF), (0x7FFFFFFF, 0x7FFF), (0, 0)],
)  # fmt: skip
def test_reduced_multipliers_are_rounded(multiplier: int, reduced: int) -> None:
    """TensorFlow Lite: (q + 2**15) >> 16, and 0x7FFF where that would leave int16."""
    assert reduce_multiplier(multiplier, -3) == (reduced, -3)


def test_reduced_products_are_rounded_half_up() -> None:
    x = np.array([-3, -2, -1, 0, 1, 2, 3, 2**47, -(2**47)])
    assert multiply(x, 2**14, 0, "reduced").tolist() == [-1, -1, 0, 0, 1, 1, 2, 2**46, -(2**46)]
    assert reduce_multiplier(2**30, 14) == (2**14, 14)
    with pytest.raises(ValueError, match="below"):
        reduce_multiplier(2**30, 15)
