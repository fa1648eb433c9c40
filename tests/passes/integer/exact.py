"""The arithmetic of the integer operators in Python integers, written from TensorFlow Lite's definition, slow and
plain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def truncated(a: int, b: int) -> int:
    """Division as in C."""
    return abs(a) // b * (1 if a >= 0 else -1)


def multiply(x: int, multiplier: int, shift: int, rounding: str) -> int:
    """MultiplyByQuantizedMultiplier; the left shift saturates."""
    if rounding == "single":
        return (x * multiplier + (1 << (30 - shift))) >> (31 - shift)
    if rounding == "reduced":
        return (x * multiplier + (1 << (14 - shift))) >> (15 - shift)
    x = max(-(2**31), min(2**31 - 1, x * 2 ** max(shift, 0)))
    product = x * multiplier
    high = truncated(product + (1 << 30 if product >= 0 else 1 - (1 << 30)), 1 << 31)
    right = max(-shift, 0)
    mask = (1 << right) - 1
    threshold = (mask >> 1) + (1 if high < 0 else 0)
    return (high >> right) + (1 if (high & mask) > threshold else 0)


def requantize(x: int, multiplier: int, shift: int, zero_point: int, qmin: int, qmax: int, rounding: str) -> int:
    """To the output's scale, zero point and limits."""
    return max(qmin, min(qmax, multiply(x, multiplier, shift, rounding) + zero_point))


def convolution(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    zero_point: int,
) -> np.ndarray:
    """Accumulators of an NHWC, OHWI convolution, element by element."""
    n, h, w, _ = x.shape
    o, kh, kw, depth = weight.shape
    top, left, bottom, right = padding
    oh = (h + top + bottom - (kh - 1) * dilation[0] - 1) // strides[0] + 1
    ow = (w + left + right - (kw - 1) * dilation[1] - 1) // strides[1] + 1
    acc = np.zeros((n, oh, ow, o), np.int64)
    for b, i, j, k in np.ndindex(acc.shape):
        total = int(bias[k])
        first = k // (o // groups) * depth
        for u, v in np.ndindex(kh, kw):
            row, column = i * strides[0] + u * dilation[0] - top, j * strides[1] + v * dilation[1] - left
            if 0 <= row < h and 0 <= column < w:
                pixel = x[b, row, column, first : first + depth].astype(np.int64) - zero_point
                total += int(pixel @ weight[k, u, v].astype(np.int64))
        acc[b, i, j, k] = total
    return acc
