"""Versions of a model against the original on the same samples: what analyses measure again and again."""

from __future__ import annotations

import hashlib

import numpy as np

from ..data.dataset import Dataset
from ..model import Model
from ..targets.record import Record
from .accuracy import as_runner
from .noise import decibel

_BATCH = 64


class OutputQuality(Record):
    """What is left of a model's outputs.

    Attributes:
        error: Squared error of the first output, relative to the square of the original's.
        accuracy: Share of samples classified right; None without labels.
        agreement: Share of samples for which the highest output is the original's; None where the model gives back its
            input, whose highest value means nothing.
    """

    error: float
    accuracy: float | None = None
    agreement: float | None = None

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio of the output in dB."""
        return decibel(1.0, self.error)


class OutputComparison:
    """Compares versions of a model with the original on the same samples.

    Args:
        model: The original.
        data: The samples; with labels the accuracy is measured, too.

    Attributes:
        original: The quality of the original: no error, its accuracy.
    """

    def __init__(self, model: Model, data: Dataset) -> None:
        self._batches = list(data.batches(_BATCH))
        self._labels = data.labels
        self._outputs = self._run(model)
        self._norm = max(float(np.square(self._outputs).sum()), np.finfo(np.float64).tiny)
        first = self._batches[0][0]
        self._classifies = self._outputs.shape[1:] != (first[0].size,) and self._outputs.shape[1] > 1
        self.original = self._quality(self._outputs)

    def __call__(self, model: Model) -> OutputQuality:
        """The quality of a version."""
        return self._quality(self._run(model))

    def _run(self, model: Model) -> np.ndarray:
        run = as_runner(model)
        outputs = [run(batch)[0] for batch in self._batches]
        return np.concatenate([values.reshape(len(values), -1).astype(np.float64) for values in outputs])

    def _quality(self, outputs: np.ndarray) -> OutputQuality:
        best = outputs.argmax(-1)
        return OutputQuality(
            error=float(np.square(outputs - self._outputs).sum()) / self._norm,
            accuracy=None if self._labels is None else float((best == self._labels).mean()),
            agreement=float((best == self._outputs.argmax(-1)).mean()) if self._classifies else None,
        )


def fingerprint(model: Model, *datasets: Dataset, options: str = "") -> str:
    """A digest of weights, samples, labels and options: what was measured with others does not count."""
    digest = hashlib.sha256(options.encode())
    for name, value in sorted(model.params.items()):
        digest.update(name.encode() + value.tobytes())
    for data in datasets:
        for batch in data.batches(_BATCH):
            for values in batch:
                digest.update(np.ascontiguousarray(values).tobytes())
        if data.labels is not None:
            digest.update(np.ascontiguousarray(data.labels).tobytes())
    return digest.hexdigest()[:16]
