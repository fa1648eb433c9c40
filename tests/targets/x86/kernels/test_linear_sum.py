"""Sums of two scales as linear forms: every pair of bytes gives what TensorFlow Lite's three roundings give."""

# mypy: ignore-errors

from __future__ import annotations

import dataclasses

import numpy as np

from tvmcompress.passes.integer.elementwise import add_parameters
from tvmcompress.targets.x86.kernels.linear_sum import Factor, LinearForm, Sum, linear_form


def described(scales, zeros) -> Sum:
    found = add_parameters(*scales)
    factors = (Factor(found[f"{name}_multiplier"], found[f"{name}_shift"]) for name in ("input1", "input2", "output"))
    return Sum(*factors, *zeros, 20)


def three_roundings(what: Sum, x1: int, x2: int) -> int:
    """TensorFlow Lite's reference, one pair in Python's integers."""

    def scaled(value: int, factor: Factor) -> int:
        high = (value * factor.multiplier + (1 << 30)) >> 31
        right = -factor.shift
        if right == 0:
            return high
        half = 1 << (right - 1)
        return (abs(high) + half) // (1 << right) * (1 if high >= 0 else -1)

    total = scaled((x1 - what.zero1) << 20, what.first) + scaled((x2 - what.zero2) << 20, what.second)
    return scaled(total, what.output) + what.zero


def test_the_table_is_the_reference() -> None:
    what = described((0.031, 0.055, 0.06), (-128, 7, -5))
    table = what.table()
    for x1, x2 in np.random.default_rng(0).integers(-128, 128, (500, 2)):
        assert table[x1 + 128, x2 + 128] == three_roundings(what, int(x1), int(x2))


def test_forms_are_right_for_every_pair() -> None:
    random = np.random.default_rng(1)
    found = []
    for number in range(12):
        first, second = random.uniform(0.01, 0.1, 2)
        scales = (first, second, max(first, second) * random.uniform(0.7, 1.6))
        limits = [(-128, 127), (-20, 127), (-128, 60)][number % 3]
        what = described(scales, [int(zero) for zero in random.integers(-128, 128, 3)])
        form = linear_form(what, *limits)
        if form is None:
            continue
        found.append(form)
        assert form.fits
        x = np.arange(-128, 128, dtype=np.int32)
        with np.errstate(over="raise"):
            sums = x[:, None] * np.int32(form.first) + x[None, :] * np.int32(form.second) + np.int32(form.offset)
        np.testing.assert_array_equal(np.clip(sums >> form.shift, *limits), np.clip(what.table(), *limits))
    assert len(found) >= 8


def test_a_sum_full_of_ties() -> None:
    """Halves away from zero: a slope a little too large rounds them so on both sides."""
    what = described((0.5, 0.5, 1.0), (0, 0, 0))
    assert (what.table()[127, 128], what.table()[129, 128]) == (-1, 1)
    form = linear_form(what, -128, 127)
    assert form is not None
    np.testing.assert_array_equal(form.table(), what.table())


def test_forms_that_would_overflow_do_not_fit() -> None:
    assert LinearForm(2**22, 2**22, 2**29, 20).fits
    assert not LinearForm(2**23, 2**22, 2**30, 20).fits
    assert linear_form(dataclasses.replace(described((0.05, 0.05, 1e-7), (0, 0, 0))), -128, 127) is None
