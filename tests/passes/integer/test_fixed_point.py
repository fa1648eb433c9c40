"""The constants of gemmlowp's fixed-point functions are what they are named, to the last bit."""

from __future__ import annotations

import math

from tvmcompress.passes.integer import fixed_point


def test_constants() -> None:
    assert round(math.exp(-1 / 8) * 2**31) == fixed_point._EXP_MINUS_EIGHTH
    assert round(2**31 / 3) == fixed_point._THIRD
    assert tuple(round(math.exp(-(2.0**k)) * 2**31) for k in range(-2, 5)) == fixed_point._EXP_POWERS
    assert (round(48 / 17 * 2**29), round(-32 / 17 * 2**29)) == (fixed_point.RECIPROCAL_A, fixed_point.RECIPROCAL_B)
