"""Fixed-point functions of TensorFlow Lite's integer kernels (those of gemmlowp), exact, on NumPy int64.

A number with i integer bits is a raw integer r in the range of int32 and means r * 2**(i - 31).
"""

from __future__ import annotations

import numpy as np

from .requantize import INT32_MAX, INT32_MIN

# exp(-1/8) and 1/3 without integer bits.
_EXP_MINUS_EIGHTH = 1895147668
_THIRD = 715827883
# exp(-2**k) for k = -2 to 4, without integer bits.
_EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
# 48/17 and -32/17 with two integer bits: the start of Newton's iteration for a reciprocal.
RECIPROCAL_A = 1515870810
RECIPROCAL_B = -1010580540


def high_product(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """Upper half of the doubled product, rounded half up, saturating: the product of two fixed-point numbers."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.minimum((product + (1 << 30)) >> 31, INT32_MAX)


def divide_by_power_of_two(x: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
    """x / 2**exponent, rounded half away from zero."""
    bits = np.asarray(exponent, np.int64)
    half = (np.int64(1) << bits) >> 1
    return (x + half - ((x < 0) & (bits > 0))) >> bits


def _saturating_left(x: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(x << bits, INT32_MIN, INT32_MAX)


def exp_of_negative(a: np.ndarray, integer_bits: int = 5) -> np.ndarray:
    """exp(a) for a <= 0.

    Args:
        a: Raw values with `integer_bits` integer bits, none positive.
        integer_bits: 5 for softmax, 4 for the logistic function.

    Returns:
        Raw values without integer bits.
    """
    a = np.asarray(a, np.int64)
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    rest = (a & (quarter - 1)) - quarter
    # On [-1/4, 0): the Taylor series around -1/8.
    x = _saturating_left(rest, integer_bits) + (1 << 28)
    x2 = high_product(x, x)
    x3, x4 = high_product(x2, x), high_product(x2, x2)
    tail = high_product(divide_by_power_of_two(x4, 2) + x3, _THIRD) + x2
    result = _EXP_MINUS_EIGHTH + high_product(_EXP_MINUS_EIGHTH, x + divide_by_power_of_two(tail, 1))
    # The remaining multiples of 1/4, one bit at a time.
    remainder = rest - a
    for exponent, factor in zip(range(-2, 5), _EXP_POWERS):
        if integer_bits > exponent:
            bit = (remainder >> (fraction + exponent)) & 1
            result = np.where(bit != 0, high_product(result, factor), result)
    return np.where(a == 0, INT32_MAX, result)


def reciprocal_of_one_plus(a: np.ndarray) -> np.ndarray:
    """1 / (1 + a) for a in [0, 1).

    Args:
        a: Raw values without integer bits.

    Returns:
        The same.
    """
    total = np.asarray(a, np.int64) + INT32_MAX
    # Half of a sum, rounded half away from zero; it is not negative here.
    half = (total + 1) >> 1
    x = RECIPROCAL_A + high_product(half, RECIPROCAL_B)
    for _ in range(3):
        error = (1 << 29) - high_product(half, x)
        x = x + _saturating_left(high_product(x, error), 2)
    return _saturating_left(x, 1)


# 1 / sqrt(m) on [1/4, 1) is nearly ROOT_A - ROOT_B * m, with 29 fraction bits: within 13 %, which four steps square
# away.
ROOT_A = 1184754893
ROOT_B = 715827883
ROOT_STEPS = 4


def reciprocal_root(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 / sqrt(w) as (root, exponent): close to root * 2**-exponent.

    The argument is shifted left by an even number of bits until it is at least 2**60; of that the upper 30 bits are a
    number in [1/4, 1), whose reciprocal root comes from a straight line and four steps of Newton's iteration, without
    a division.

    Args:
        w: int64 in [1, 2**62).

    Returns:
        Two int64 arrays: root in [2**29, 2**30], exponent in [30, 60].
    """
    w = np.asarray(w, np.int64)
    left = np.zeros_like(w)
    for bit in range(0, 60, 2):
        left += w < (np.int64(1) << (60 - bit))
    mantissa = (w << (2 * left)) >> 32
    root = ROOT_A - ((mantissa * ROOT_B) >> 30)
    for _ in range(ROOT_STEPS):
        square = (root * root) >> 29
        error = (3 << 29) - ((mantissa * square) >> 30)
        root = (root * error) >> 30
    return root, 60 - left
