"""Channels that give the same output for every input.

Where training has let a channel die, quantization leaves a scale close to zero and a bias close to 2**30, too large for
accumulators with a gain. The output of such a channel is known beforehand: zero weights and a small bias say the same.
"""

from __future__ import annotations

import numpy as np

from ....passes.integer.requantize import multiply
from .epilogue import Epilogue
from .scalar_epilogue import ScalarEpilogue


def settle_constant_channels(
    weights: np.ndarray,
    bias: np.ndarray,
    multiplier: np.ndarray,
    shift: np.ndarray,
    epilogue: Epilogue | ScalarEpilogue,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same layer with the plainest numbers for channels whose output does not depend on the input.

    Requantization is monotonic, so the least and the greatest accumulator tell.

    Args:
        weights: (O, K) int8.
        bias: (O,) int32, the input's zero point taken out.
        multiplier, shift: (O,) int32.
        epilogue: How accumulators become outputs.

    Returns:
        Weights, bias, multiplier and shift.
    """
    wide, start = weights.astype(np.int64), bias.astype(np.int64)
    low = start + np.minimum(127 * wide, -128 * wide).sum(1)
    high = start + np.maximum(127 * wide, -128 * wide).sum(1)
    inside = (low >= -(1 << 31)) & (high < 1 << 31)

    def output(acc: np.ndarray) -> np.ndarray:
        acc = np.where(inside, acc, 0)
        scaled = multiply(acc, multiplier, shift, epilogue.rounding) + epilogue.zero_point
        return np.clip(scaled, epilogue.qmin, epilogue.qmax)

    value = output(low)
    constant = inside & (value == output(high))
    exponent = epilogue.usual_shift
    # 2**30 * 2**(exponent - 31) times this is the output less its zero point, without rounding.
    exact = (value - epilogue.zero_point) << (1 - exponent)
    return (
        np.where(constant[:, None], 0, weights).astype(np.int8),
        np.where(constant, exact, bias).astype(np.int32),
        np.where(constant, 1 << 30, multiplier).astype(np.int32),
        np.where(constant, exponent, shift).astype(np.int32),
    )
