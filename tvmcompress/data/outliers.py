"""Calibration samples that stand far apart from all others: a sensor's error code, a unit mistaken, a file of another kind.

One such sample decides ranges, and outweighs all others in least squares.
"""

from __future__ import annotations

import numpy as np

from ..passes import Remark
from .dataset import Dataset

OUTLIERS = "calibration data"
"""What remarks on it are called by."""

_FAR = 100.0
"""A sample is far apart whose largest magnitude is more than so many times the median one of all samples."""

_RARE = 0.02
_FEWEST = 4
_NAMED = 3


def outlier_remarks(data: Dataset, batch: int = 64) -> list[Remark]:
    """A remark for each input of which few samples hold values a hundred times larger than the samples do as a rule.

    More than 2 % of the samples (and more than one) are taken for what the data is like, and so is the outlier of fewer than
    four.

    Args:
        data: The samples; run through once, one number a sample and input is kept.
        batch: Samples read at a time.
    """
    if len(data) < _FEWEST:
        return []
    columns: list[list[np.ndarray]] = [[] for _ in data.specs]
    for inputs in data.batches(batch):
        for column, value in zip(columns, inputs):
            column.append(_largest(value))
    remarks = []
    for spec, column in zip(data.specs, columns):
        found = np.concatenate(column)
        usual = float(np.median(found))
        far = np.flatnonzero(found > _FAR * usual) if usual > 0 else np.zeros(0, np.int64)
        if len(far) and len(far) <= max(1, int(_RARE * len(found))):
            remarks.append(Remark(OUTLIERS, spec.name, _sentence(far, found, usual)))
    return remarks


def _largest(value: np.ndarray) -> np.ndarray:
    """The largest magnitude of each sample, float64; 0 for integers, which mean classes or places."""
    if value.dtype.kind != "f" or not value[0].size:
        return np.zeros(len(value))
    return np.abs(value.reshape(len(value), -1)).max(1).astype(np.float64)


def _sentence(far: np.ndarray, largest: np.ndarray, usual: float) -> str:
    named = ", ".join(f"{index} (up to {largest[index]:.4g})" for index in far[:_NAMED])
    more = f" and {len(far) - _NAMED} more" if len(far) > _NAMED else ""
    samples, hold = ("sample", "holds") if len(far) == 1 else ("samples", "hold")
    return (
        f"{samples} {named}{more} of the calibration data {hold} values more than {_FAR:.0f} times as large as is usual "
        f"(up to {usual:.4g}); ranges and repairs follow them, so leave them out unless they are real"
    )
