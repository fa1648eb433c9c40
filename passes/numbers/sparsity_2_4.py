"""2:4 sparsity: weights of which two of every four are stored, with their places.

The values of a group come in ascending order of their places, and a group's two places take two bits each, as in Mishra et
al., "Accelerating Sparse Deep Neural Networks" (2021): 2.5 bytes in the place of four.
"""

from __future__ import annotations

import numpy as np

GROUP = 4
KEPT = 2


def has_2_4_sparsity(weight: np.ndarray) -> bool:
    """Whether no four successive values along the last axis, which four divides, have more than two that are not zero."""
    if weight.ndim == 0 or weight.size == 0 or weight.shape[-1] % GROUP:
        return False
    return bool((np.count_nonzero(weight.reshape(-1, GROUP), axis=1) <= KEPT).all())


def places_2_4(weight: np.ndarray) -> np.ndarray:
    """The places of the stored values of every group, int (groups, 2), ascending; zeros are stored where values are lacking."""
    groups = weight.reshape(-1, GROUP)
    order = np.argsort(groups == 0, axis=1, kind="stable")[:, :KEPT]
    places: np.ndarray = np.sort(order, axis=1)
    return places


def pack_2_4(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and indices of weights that have the pattern along their last axis.

    Args:
        weight: int8; `has_2_4_sparsity` holds.

    Returns:
        Values, int8 (size / 2,), and indices, uint8 (ceil(size / 8),): four bits a group, the first of two groups in the
        lower half; of them the lower two are the first value's place.
    """
    places = places_2_4(weight)
    values = np.take_along_axis(weight.reshape(-1, GROUP), places, axis=1).reshape(-1)
    codes = (places[:, 0] | places[:, 1] << 2).astype(np.uint8)
    codes = np.pad(codes, (0, codes.size % 2))
    return values, codes[::2] | codes[1::2] << 4


def unpack_2_4(values: np.ndarray, indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What was packed, int8 of a shape."""
    count = int(np.prod(shape)) // GROUP
    codes = np.stack([indices & 15, indices >> 4], -1).reshape(-1)[:count].astype(np.int64)
    weight = np.zeros((count, GROUP), np.int8)
    np.put_along_axis(weight, np.stack([codes & 3, codes >> 2], 1), values.reshape(count, KEPT), axis=1)
    return weight.reshape(shape)
