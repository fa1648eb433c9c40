"""An integer sum of two scales as one linear form, where that gives the same bytes for all 65,536 pairs of inputs.

TensorFlow Lite's addition multiplies and rounds three times. Real arithmetic would need one linear form and one rounding,
which differs only where a sum lies within some 2**-20 of a tie. So

    (x1 * a1 + x2 * a2 + b) >> s,  all of it in 32 bits,

is right for nearly all pairs whatever its coefficients' last bits, and those bits can mostly be chosen so that it is right
for all: each pair says that the form lies between two multiples of 2**s, and a linear program looks for the coefficients
that keep the largest distance from all of them. What is found counts only after every pair was computed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from ....passes.integer.requantize import multiply

_BITS = 30
"""Of the largest value, without its sign."""
_CONSTRAINTS = 1500
"""Pairs nearest to a tie that the linear program sees."""
_BYTES = np.arange(-128, 128, dtype=np.int64)


@dataclass(frozen=True)
class Factor:
    """A factor multiplier * 2**(shift - 31)."""

    multiplier: int
    shift: int

    @property
    def real(self) -> float:
        """Its value."""
        return math.ldexp(self.multiplier, self.shift - 31)


@dataclass(frozen=True)
class Sum:
    """What a `qadd` with double rounding computes, before it is clipped.

    Attributes:
        first: Of the first input, with `zero1`.
        second: Of the second one, with `zero2`.
        output: Of the sum; `zero` is added after.
        left_shift: Of both inputs.
    """

    first: Factor
    second: Factor
    output: Factor
    zero1: int
    zero2: int
    zero: int
    left_shift: int

    def table(self) -> np.ndarray:
        """The result for every pair of bytes, int64 (256, 256)."""

        def scaled(zero: int, factor: Factor) -> np.ndarray:
            return multiply((_BYTES - zero) << self.left_shift, factor.multiplier, factor.shift, "double")

        total = scaled(self.zero1, self.first)[:, None] + scaled(self.zero2, self.second)[None, :]
        return multiply(total, self.output.multiplier, self.output.shift, "double") + self.zero


@dataclass(frozen=True)
class LinearForm:
    """(x1 * first + x2 * second + offset) >> shift."""

    first: int
    second: int
    offset: int
    shift: int

    def table(self) -> np.ndarray:
        """Its value for every pair of bytes, int64 (256, 256)."""
        return (_BYTES[:, None] * self.first + _BYTES[None, :] * self.second + self.offset) >> self.shift

    @property
    def fits(self) -> bool:
        """Whether no sum leaves 32 bits, in whatever order."""
        return 128 * (abs(self.first) + abs(self.second)) + abs(self.offset) < 1 << 31


@functools.lru_cache(256)
def linear_form(what: Sum, qmin: int, qmax: int) -> LinearForm | None:
    """The form that gives what `what` gives, clipped to [qmin, qmax], for every pair; None where none was found."""
    expected = np.clip(what.table(), qmin, qmax)
    scale = what.output.real * 2.0**what.left_shift
    a1, a2 = what.first.real * scale, what.second.real * scale
    offset = what.zero + 0.5 - what.zero1 * a1 - what.zero2 * a2
    reach = 128 * (a1 + a2) + abs(offset)
    shift = min(_BITS - math.ceil(math.log2(reach)), 24)
    if shift < 8:
        return None
    for found in ((a1, a2, offset), _farthest(expected, (a1, a2, offset), qmin, qmax)):
        if found is None:
            continue
        first, second, third = (round(value * 2.0**shift) for value in found)
        form = LinearForm(first, second, third, shift)
        if form.fits and np.array_equal(np.clip(form.table(), qmin, qmax), expected):
            return form
    return None


def _farthest(
    expected: np.ndarray, start: tuple[float, float, float], qmin: int, qmax: int
) -> tuple[float, float, float] | None:
    """Coefficients near `start` that keep the largest distance from the next integer on each side."""
    value = _BYTES[:, None] * start[0] + _BYTES[None, :] * start[1] + start[2]
    rows, limits = [], []
    # Results at a limit may lie anywhere beyond it.
    for distance, sign, counts in ((value - expected, -1.0, expected > qmin), (expected + 1 - value, 1.0, expected < qmax)):
        far = np.where(counts, distance, np.inf).ravel()
        nearest = np.argsort(far)[:_CONSTRAINTS]
        nearest = nearest[np.isfinite(far[nearest])]
        first, second = _BYTES[nearest // 256], _BYTES[nearest % 256]
        # sign * (form - value) + margin <= distance, in units of 2**-20 so that the solver sees numbers near 1.
        unit = np.ones(len(nearest))
        rows.append(np.stack([sign * first, sign * second, sign * unit, unit], 1))
        limits.append(far[nearest] * 2.0**20)
    box = [(-64, 64), (-64, 64), (-8192, 8192), (None, 4096)]
    result = linprog([0, 0, 0, -1], np.concatenate(rows), np.concatenate(limits), bounds=box)
    if result.x is None or result.x[3] <= 0:
        return None
    d1, d2, d3 = (float(value) * 2.0**-20 for value in result.x[:3])
    return start[0] + d1, start[1] + d2, start[2] + d3
