"""Moving scale by channel into the weights that read the channels."""

from __future__ import annotations

import numpy as np

HOMOGENEOUS = (
    "relax.nn.relu",
    "relax.nn.leakyrelu",
    "relax.nn.max_pool2d",
    "relax.nn.avg_pool2d",
    "relax.nn.adaptive_avg_pool2d",
)
"""Operators with f(s x) = s f(x) for s > 0, in which no channel touches another."""


def input_ranges(weight: np.ndarray, groups: int | None, repeats: int = 1) -> np.ndarray:
    """(C,): the largest weight that each input channel meets.

    Args:
        weight: (O, C / groups, ...) of a convolution, (C * repeats, O) of a matrix product.
        groups: Of a convolution; None for a matrix product.
        repeats: So many inputs of the matrix product beside each other are one channel.
    """
    if groups is None:
        return np.abs(weight).max(1).reshape(-1, repeats).max(1)
    grouped = np.abs(weight).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return grouped.max(axis=(1, 3)).reshape(-1)


def along_inputs(scale: np.ndarray, weight: np.ndarray, groups: int | None, repeats: int = 1) -> np.ndarray:
    """The scale (C,) of every input channel where its weights are, broadcastable to the weight; see `input_ranges`."""
    if groups is None:
        return np.repeat(scale, repeats)[:, None]
    by_group = np.repeat(scale.reshape(groups, weight.shape[1]), weight.shape[0] // groups, axis=0)
    return by_group.reshape(weight.shape[:2] + (1,) * (weight.ndim - 2))
