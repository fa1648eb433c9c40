"""Constants that are stored without their zeros, in the format's compressed dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np


def densify(values: np.ndarray, shape: tuple[int, ...], sparsity: Any) -> np.ndarray:
    """A sparse constant with its zeros.

    The dimensions of the tensor, and behind them those of blocks, are traversed in a given order; each is stored in full or
    as segments of indices (compressed sparse rows; "Tensor Algebra Compiler", Kjolstad et al., 2017).

    Args:
        values: What is stored, one-dimensional.
        shape: Of the tensor.
        sparsity: The format's `SparsityParameters`.

    Returns:
        The dtype of `values`, of shape `shape`.
    """
    order = [int(axis) for axis in sparsity.TraversalOrderAsNumpy()]
    blocked = [int(axis) for axis in sparsity.BlockMapAsNumpy()] if sparsity.BlockMapLength() else []
    levels = [sparsity.DimMetadata(level) for level in range(len(order))]
    # The coordinates of every stored value, level by level; `entry` numbers what is stored at the level.
    coordinates = np.zeros((1, 0), np.int64)
    entry = np.zeros(1, np.int64)
    for level in levels:
        if level.Format() == 0:
            size = int(level.DenseSize())
            inner = np.tile(np.arange(size), len(entry))
            parent = np.repeat(np.arange(len(entry)), size)
            entry = entry[parent] * size + inner
        else:
            segments, indices = (_vector(level, name) for name in ("ArraySegments", "ArrayIndices"))
            counts = segments[entry + 1] - segments[entry]
            parent = np.repeat(np.arange(len(entry)), counts)
            starts = np.repeat(segments[entry] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
            entry = starts + np.arange(len(parent))
            inner = indices[entry]
        coordinates = np.concatenate([coordinates[parent], inner[:, None]], 1)
    by_axis = np.empty_like(coordinates)
    by_axis[:, order] = coordinates
    places = by_axis[:, : len(shape)].copy()
    for number, axis in enumerate(blocked):
        size = next(int(level.DenseSize()) for level, a in zip(levels, order) if a == len(shape) + number)
        places[:, axis] = places[:, axis] * size + by_axis[:, len(shape) + number]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(places.T)] = values[entry]
    return dense


def _vector(level: Any, name: str) -> np.ndarray:
    """The indices of a compressed level, stored in 8, 16 or 32 bits."""
    import tflite

    kind = getattr(level, f"{name}Type")()
    names = {value: key for key, value in vars(tflite.SparseIndexVector).items() if isinstance(value, int)}
    table = getattr(level, name)()
    vector = getattr(tflite, names[kind])()
    vector.Init(table.Bytes, table.Pos)
    return np.asarray(vector.ValuesAsNumpy()).astype(np.int64)
