"""Weights of four bits: a scale for each output channel, and for each group of input channels a small multiplier of it.

The weight that a value stands for is scale * multiplier * value with the value in [-8, 7] and the multiplier in [1, 15].
Their product fits int8, so that integer operators compute with it as with any int8 weight, and groups cost nothing when
they do. Scale and multipliers are those with the least squared error among a grid, as in Nagel et al., "A White Paper on
Neural Network Quantization" (2021), section 3.1; that scales of groups are small integers times another scale is Dai et
al., "VS-Quant" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .affine import SMALLEST_SCALE, power_of_two

LOWEST, HIGHEST = -8, 7
LARGEST_MULTIPLIER = 15
_SHRINKAGE = np.linspace(1.0, 0.45, 23)


@dataclass(frozen=True)
class Int4Weights:
    """A weight in four bits.

    Attributes:
        values: int8 (O, I, K) in [-8, 7].
        multipliers: int8 (O, groups) in [1, 15].
        scales: float64 (O,).
    """

    values: np.ndarray
    multipliers: np.ndarray
    scales: np.ndarray


def spread(multipliers: np.ndarray, inputs: int, group_size: int) -> np.ndarray:
    """The multiplier of every input channel.

    Args:
        multipliers: (O, groups).
        inputs: Number of input channels.
        group_size: Input channels of a group; 0 for one group.

    Returns:
        (O, inputs).
    """
    return multipliers.repeat(group_size or inputs, 1)[:, :inputs]


def quantize_int4(
    weight: np.ndarray,
    group_size: int = 0,
    *,
    smallest: np.ndarray | float = SMALLEST_SCALE,
    per_channel: bool = True,
    shift_only: bool = False,
) -> Int4Weights:
    """Choose scales and multipliers for a weight, and round it to them.

    Args:
        weight: float (O, I, K): output channels, input channels, everything else.
        group_size: Input channels that share a multiplier; 0 for one group, whose multiplier is 1.
        smallest: No scale is smaller: a number, or one a channel.
        per_channel: Whether output channels have scales of their own.
        shift_only: Whether scales are powers of two.
    """
    outputs, inputs, _ = weight.shape
    size = min(group_size or inputs, max(inputs, 1))
    groups = -(-inputs // size) if inputs else 1
    # Zeros fill up the last group; they are exact under any multiplier.
    padded = np.pad(weight.astype(np.float64), ((0, 0), (0, groups * size - inputs), (0, 0)))
    blocks = padded.reshape(outputs, groups, -1)
    choices = np.arange(1, LARGEST_MULTIPLIER + 1) if groups > 1 else np.ones(1, np.int64)
    magnitude = np.maximum(blocks.max(2, initial=0) / HIGHEST, blocks.min(2, initial=0) / LOWEST).max(1)
    if not per_channel:
        magnitude = np.full_like(magnitude, magnitude.max(initial=0))
    magnitude = np.where(magnitude > 0, magnitude, 1.0) / choices[-1]
    best = np.full(outputs, np.inf)
    scales, multipliers = magnitude.copy(), np.ones((outputs, groups), np.int64)
    for factor in _SHRINKAGE:
        candidate = np.maximum(magnitude * factor, smallest)
        # As it will be stored.
        candidate = power_of_two(candidate) if shift_only else candidate.astype(np.float32).astype(np.float64)
        errors = np.stack([_error(blocks, candidate * choice) for choice in choices])
        total = errors.min(0).sum(1)
        better = total < best if per_channel else np.full(outputs, total.sum() < best.sum())
        best = np.where(better, total, best)
        scales = np.where(better, candidate, scales)
        multipliers = np.where(better[:, None], choices[errors.argmin(0)], multipliers)
    steps = scales[:, None] * spread(multipliers, inputs, size if groups > 1 else 0)
    values = np.clip(np.rint(weight / steps[:, :, None]), LOWEST, HIGHEST).astype(np.int8)
    return Int4Weights(values, multipliers.astype(np.int8), scales)


def _error(blocks: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Squared error of every group (O, groups) with one step a channel."""
    wide = steps[:, None, None]
    return np.square(np.clip(np.rint(blocks / wide), LOWEST, HIGHEST) * wide - blocks).sum(2)


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Two values a byte, the first in the lower half, two's complement: uint8 (ceil(size / 2),)."""
    flat = values.reshape(-1).astype(np.uint8) & 15
    flat = np.pad(flat, (0, flat.size % 2))
    packed: np.ndarray = flat[::2] | (flat[1::2] << 4)
    return packed


def unpack_int4(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What was packed, int8 of a shape."""
    halves = np.stack([packed & 15, packed >> 4], -1).reshape(-1)[: int(np.prod(shape))]
    # The sign is the fourth bit.
    return ((halves ^ 8).astype(np.int8) - np.int8(8)).reshape(shape)
