"""How good a model is: accuracy on labelled data, agreement with the original, and the noise at each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..data.dataset import DataLike, Dataset, load_data
from ..errors import UserError
from ..model import Model, Preprocessing
from ..passes.graph.interpreter import Interpreter
from ..targets.base import Artifact
from ..targets.record import Record

Runner = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Float inputs of several samples to float outputs."""

_BATCH = 64


class Evaluation(Record):
    """The quality of a model on some data.

    Attributes:
        samples: How many were used.
        accuracy: Share whose highest output is the label's, 0 to 1; None without labels.
        correct: The number of those.
        half_width: Half the width of the 95 % confidence interval of the accuracy.
        most_frequent: Share of the label that is most frequent: what answering it always would reach; None without labels.
        agreement: Share for which model and reference have the same highest output; None without a reference.
        reference_accuracy: The reference's accuracy on the same samples.
        relative_error: |output - reference| / |reference| over all samples, Euclidean norms; None without a reference.
        reconstruction_error: Mean squared error of the output against the input, where they have the same shape.
        reference_reconstruction_error: The same of the reference.
    """

    samples: int
    accuracy: float | None = None
    correct: int | None = None
    half_width: float | None = None
    most_frequent: float | None = None
    agreement: float | None = None
    reference_accuracy: float | None = None
    relative_error: float | None = None
    reconstruction_error: float | None = None
    reference_reconstruction_error: float | None = None

    @property
    def reconstruction_change(self) -> float | None:
        """Relative change of the reconstruction error against the reference's."""
        if self.reconstruction_error is None or not self.reference_reconstruction_error:
            return None
        return self.reconstruction_error / self.reference_reconstruction_error - 1

    @property
    def doubt(self) -> str | None:
        """What may be wrong with the data, where the accuracy tells; None where nothing does."""
        original = self.accuracy if self.reference_accuracy is None else self.reference_accuracy
        if original is None or self.most_frequent is None:
            return None
        if original - _half_width(original, self.samples) > self.most_frequent:
            return None
        return (
            f"the accuracy of {original * 100:.1f} % is not clearly better than that of always answering with the most "
            f"frequent label ({self.most_frequent * 100:.1f} %); check that the data is what the model takes (scale, mean, "
            "std, layout) and that the labels are its classes"
        )

    def of_reference(self) -> Evaluation:
        """What is known of the reference from the same run."""
        accuracy = self.reference_accuracy
        return Evaluation(
            samples=self.samples,
            accuracy=accuracy,
            correct=round(accuracy * self.samples) if accuracy is not None else None,
            half_width=_half_width(accuracy, self.samples) if accuracy is not None else None,
            most_frequent=self.most_frequent,
            agreement=1.0 if self.agreement is not None else None,
            relative_error=0.0 if self.relative_error is not None else None,
            reconstruction_error=self.reference_reconstruction_error,
        )


def evaluate(
    model: Model | Artifact | Runner,
    data: DataLike | Dataset,
    *,
    reference: Model | Artifact | Runner | None = None,
    preprocessing: Preprocessing | None = None,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a model on data.

    Args:
        model: A model (run on this machine in NumPy; an integer model gives the bytes that it gives on every target), a
            built artifact (run on its target), or a function.
        data: Labelled or unlabelled samples; see `tvmcompress.data.load_data`. A `Dataset` where `model` is a function.
        reference: What to compare with, usually the original.
        preprocessing: How raw data becomes the input; by default what the model says.
        limit: Samples to use at most.
        on_progress: Told samples done, out of how many.

    Raises:
        UserError: The data does not fit, there is nothing to evaluate (no labels, no reference), or a wrong label.
    """
    dataset = _dataset(data, model, reference, preprocessing, limit)
    run, other = as_runner(model), None if reference is None else as_runner(reference)
    total = _Totals(dataset.source)
    for inputs, labels in dataset.labelled_batches(_BATCH):
        total.add(inputs, labels, run(inputs)[0], None if other is None else other(inputs)[0])
        if on_progress is not None:
            on_progress(total.samples, len(dataset))
    return total.evaluation()


def as_runner(model: Model | Artifact | Runner) -> Runner:
    """A function from float inputs to float outputs."""
    if isinstance(model, Model):
        return Interpreter(model.module)
    if isinstance(model, Artifact):
        return model.run_float
    return model


def _dataset(
    data: DataLike | Dataset, model: object, reference: object, preprocessing: Preprocessing | None, limit: int | None
) -> Dataset:
    if isinstance(data, Dataset):
        return data.first(limit)
    described = next((entry for entry in (model, reference) if isinstance(entry, Model)), None)
    if described is None:
        raise UserError("give the data as load_data returns it: what is evaluated does not say what its inputs are")
    return load_data(data, described.inputs, preprocessing=preprocessing, limit=limit)


class _Totals:
    """Sums over batches."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.samples = 0
        self.correct = self.reference_correct = self.agreeing = 0
        self.labelled = self.compared = self.reconstructs = False
        self.labels = np.zeros(0, np.int64)
        self.error = self.norm = 0.0
        self.own_loss = self.other_loss = 0.0
        self.elements = 0

    def add(
        self, inputs: Sequence[np.ndarray], labels: np.ndarray | None, output: np.ndarray, other: np.ndarray | None
    ) -> None:
        count = len(inputs[0])
        if not np.isfinite(output).all():
            raise UserError(f"the model gives NaN or infinity on {self.source}; its outputs cannot be compared")
        flat = output.reshape(count, -1)
        best = flat.argmax(1)
        self.samples += count
        if labels is not None:
            if labels.min(initial=0) < 0 or labels.max(initial=0) >= flat.shape[1]:
                raise UserError(
                    f"the labels of {self.source} go from {labels.min()} to {labels.max()}, "
                    f"but the model tells {flat.shape[1]} classes apart (0 to {flat.shape[1] - 1})"
                )
            self.labelled = True
            self.correct += int((best == labels).sum())
            self.labels = _added(self.labels, np.bincount(labels))
        if output.shape == inputs[0].shape:
            self.reconstructs = True
            self.elements += output.size
            self.own_loss += _squares(output - inputs[0])
        if other is not None:
            self.compared = True
            other_best = other.reshape(count, -1).argmax(1)
            self.agreeing += int((best == other_best).sum())
            self.error += _squares(flat - other.reshape(count, -1))
            self.norm += _squares(other)
            if labels is not None:
                self.reference_correct += int((other_best == labels).sum())
            if self.reconstructs:
                self.other_loss += _squares(other - inputs[0])

    def evaluation(self) -> Evaluation:
        if not (self.labelled or self.compared or self.reconstructs):
            raise UserError(
                f"{self.source} has no labels and there is no model to compare with; "
                "give labelled data (an array 'y' in the .npz), or the original with --against"
            )
        share = self.correct / self.samples
        # An autoencoder's highest output means nothing.
        classes = not self.reconstructs
        return Evaluation(
            samples=self.samples,
            accuracy=share if self.labelled else None,
            correct=self.correct if self.labelled else None,
            half_width=_half_width(share, self.samples) if self.labelled else None,
            most_frequent=int(self.labels.max()) / self.samples if self.labelled else None,
            agreement=self.agreeing / self.samples if self.compared and classes else None,
            reference_accuracy=self.reference_correct / self.samples if self.labelled and self.compared else None,
            relative_error=float(np.sqrt(self.error / max(self.norm, 1e-30))) if self.compared else None,
            reconstruction_error=self.own_loss / self.elements if self.reconstructs else None,
            reference_reconstruction_error=(self.other_loss / self.elements if self.reconstructs and self.compared else None),
        )


def _added(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sum of two counts of different lengths."""
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _half_width(share: float, samples: int) -> float:
    """Of the 95 % interval of a share, by the normal approximation."""
    return 1.96 * float(np.sqrt(share * (1 - share) / samples))


def _squares(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).sum())
