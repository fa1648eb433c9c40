"""Parts of data: what is measured on must not be what was calibrated on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UserError
from .dataset import Dataset


def take(data: Dataset, indices: np.ndarray) -> Dataset:
    """The samples of these numbers, in this order; they are copied."""
    labels = None if data.labels is None else data.labels[indices]
    return replace(data, arrays=tuple(_rows(array, indices) for array in data.arrays), labels=labels)


def spread(data: Dataset, count: int) -> Dataset:
    """At most `count` samples, spread evenly over all, since files may be sorted by class."""
    return data if count >= len(data) else take(data, _spread(len(data), count))


def split(data: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """A fraction of the samples, spread evenly, and the others.

    Raises:
        UserError: It is no fraction, or one of the parts is empty.
    """
    if not 0 < fraction < 1:
        raise UserError(f"{fraction:g} is no part of the samples; give a fraction between 0 and 1, both excluded")
    size = data.specs[0].shape[0]
    count = round(len(data) * fraction) // size * size
    if not 0 < count < len(data):
        raise UserError(f"{fraction:g} of the {len(data)} samples of {data.source} leaves one part empty")
    chosen = _spread(len(data), count)
    return take(data, chosen), take(data, np.setdiff1d(np.arange(len(data)), chosen))


def without(data: Dataset, other: Dataset) -> Dataset:
    """The samples that `other` does not hold; maybe none."""
    known = {_digest(sample) for batch in other.batches() for sample in zip(*batch)}
    new = np.array([_digest(sample) not in known for batch in data.batches() for sample in zip(*batch)], bool)
    return data if new.all() else take(data, np.nonzero(new)[0])


def _spread(total: int, count: int) -> np.ndarray:
    return np.arange(count) * total // count


def _rows(array: Any, indices: np.ndarray) -> np.ndarray:
    """Rows of an array; one that is read file by file gives slices only."""
    if isinstance(array, np.ndarray):
        return np.asarray(array[indices])
    rows = [np.asarray(array[index : index + 1]) for index in indices.tolist()]
    return np.concatenate(rows) if rows else np.zeros((0, *array.shape[1:]), array.dtype)


def _digest(sample: Sequence[np.ndarray]) -> bytes:
    return hashlib.blake2b(b"".join(np.ascontiguousarray(value).tobytes() for value in sample)).digest()
