"""What an accumulator can reach, from the weights."""

from __future__ import annotations

import numpy as np

from ..integer.requantize import INT32_MAX, INT32_MIN


def accumulator_bounds(
    weight: np.ndarray, bias: np.ndarray, input_zero_point: int, qmin: int = -128, qmax: int = 127
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of bias + sum((x - zero_point) * weight) over all inputs, padding included.

    Partial sums in any order lie within them too, if the bias is counted as one of the summands.

    Args:
        weight: Integers (O, K).
        bias: Integers (O,).
        input_zero_point: Of the input.
        qmin: Smallest value of the input.
        qmax: Largest value of the input.

    Returns:
        Two int64 arrays (O,).
    """
    wide = weight.astype(np.int64)
    low, high = min(qmin - input_zero_point, 0), max(qmax - input_zero_point, 0)
    offset = bias.astype(np.int64)
    smallest = np.minimum(wide * low, wide * high).sum(1) + np.minimum(offset, 0)
    largest = np.maximum(wide * low, wide * high).sum(1) + np.maximum(offset, 0)
    return smallest, largest


def fits_int32(weight: np.ndarray, bias: np.ndarray, input_zero_point: int, qmin: int = -128, qmax: int = 127) -> bool:
    """Whether the accumulator of a layer stays in 32 bits, whatever the input and the order of summation."""
    smallest, largest = accumulator_bounds(weight, bias, input_zero_point, qmin, qmax)
    return bool(smallest.min(initial=0) >= INT32_MIN and largest.max(initial=0) <= INT32_MAX)
