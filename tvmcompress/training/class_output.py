"""Outputs that tell classes apart: whether there are any, and the logarithms of what they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .backend import Tensor


@dataclass(frozen=True)
class ClassOutput:
    """What is known of a first output that holds one value a class.

    Attributes:
        classes: How many.
        probabilities: Whether the values are probabilities; otherwise they are logits.
    """

    classes: int
    probabilities: bool

    @staticmethod
    def of(outputs: Sequence[Tensor]) -> ClassOutput | None:
        """Seen from the outputs for some samples; None where the first is no list of classes."""
        first = outputs[0]
        # (samples, classes), or further axes of length one
        if first.ndim < 2 or first[0].numel() != first.shape[1] or first.shape[1] < 2 or not first.is_floating_point():
            return None
        rows = first.reshape(len(first), -1)
        probabilities = bool((rows >= 0).all() and ((rows.sum(1) - 1).abs() < 1e-3).all())
        return ClassOutput(int(first.shape[1]), probabilities)

    def logs(self, outputs: Sequence[Tensor], temperature: float = 1.0) -> Tensor:
        """Logarithms of the predicted probabilities, (samples, classes), softened by a temperature."""
        rows = outputs[0].reshape(len(outputs[0]), -1)
        if self.probabilities:
            rows = rows.clamp_min(1e-30).log()
            if temperature == 1.0:
                return rows
        return (rows / temperature).log_softmax(1)

    def checked(self, labels: np.ndarray, samples: int) -> np.ndarray:
        """Labels as int64 (samples,).

        Raises:
            UserError: They are not one class number a sample.
        """
        labels = np.asarray(labels)
        if labels.shape != (samples,) or labels.dtype.kind not in "iu":
            raise UserError(f"labels must be {samples} integers, one a sample; given are {labels.dtype} {labels.shape}")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise UserError(
                f"the labels go from {labels.min()} to {labels.max()}, but the model tells {self.classes} classes apart"
            )
        return labels.astype(np.int64)
