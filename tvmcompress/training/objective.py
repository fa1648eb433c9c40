"""What fine-tuning makes small: cross-entropy with labels, distance to a teacher, or a reconstruction's error."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UserError
from .backend import Tensor, load_torch
from .class_output import ClassOutput


class Objective:
    """The loss of a batch, a mean over its samples.

    Where the first output holds classes: the cross-entropy of the labels; the Kullback-Leibler divergence from the
    teacher's predictions, both softened by a temperature, times its square (Hinton et al., "Distilling the Knowledge in a
    Neural Network", 2015); or alpha of the second with the rest of the first. That it holds classes is seen from labels, or
    from probabilities. Otherwise the squared error against the teacher's outputs (for logits see Ba and Caruana, "Do Deep
    Nets Really Need to be Deep?", 2014), each relative to its mean square; without a teacher that against the input, for
    models that give back what they are given.

    Args:
        outputs: The model's outputs for some samples.
        inputs: These samples.
        labels: Whether there are labels.
        teacher: Whether there are a teacher's outputs.
        temperature: Larger than 0; 1 leaves predictions as they are.
        alpha: Share of the teacher, in [0, 1], beside labels.

    Raises:
        UserError: There is nothing to learn from.
    """

    def __init__(
        self,
        outputs: Sequence[Tensor],
        inputs: Sequence[Tensor],
        *,
        labels: bool,
        teacher: bool,
        temperature: float = 1.0,
        alpha: float = 0.5,
    ) -> None:
        self._torch = load_torch()
        gives_back = outputs[0].shape == inputs[0].shape and outputs[0].is_floating_point()
        found = None if gives_back or not (labels or len(outputs) == 1) else ClassOutput.of(outputs)
        self.classes = found if found is not None and (labels or found.probabilities) else None
        self._labels = labels and self.classes is not None
        self._teacher = teacher
        self._temperature = temperature
        self._alpha = alpha if self._labels else 1.0
        if not (self._labels or teacher or gives_back):
            raise UserError(
                "there is nothing to learn from: give labels, or distill from the original model; the first output has "
                f"shape {tuple(outputs[0].shape[1:])} a sample"
            )

    def __call__(
        self,
        outputs: Sequence[Tensor],
        *,
        inputs: Sequence[Tensor],
        labels: Tensor | None = None,
        teacher: Sequence[Tensor] | None = None,
        smoothing: float = 0.0,
    ) -> Tensor:
        """The loss.

        Args:
            outputs: The model's.
            inputs: What it was given.
            labels: The classes of the samples, int64 (samples,).
            teacher: The teacher's outputs.
            smoothing: Share of a label that is spread over all classes (Szegedy et al., "Rethinking the Inception
                Architecture for Computer Vision", 2016).
        """
        if self.classes is None:
            return self._squared(outputs, inputs[:1] if teacher is None else teacher)
        loss = self._torch.zeros(())
        if self._labels and labels is not None and not (teacher is not None and self._alpha == 1.0):
            logs = self.classes.logs(outputs)
            hard = -(1 - smoothing) * logs.gather(1, labels[:, None]).mean() - smoothing * logs.mean()
            loss = hard if teacher is None else (1 - self._alpha) * hard
        if teacher is not None and self._alpha > 0:
            teacher_logs = self.classes.logs(teacher, self._temperature)
            found = self.classes.logs(outputs, self._temperature)
            divergence = (teacher_logs.exp() * (teacher_logs - found)).sum(1).mean()
            loss = loss + self._alpha * self._temperature**2 * divergence
        return loss

    def correct(self, outputs: Sequence[Tensor], labels: Tensor | None) -> int | None:
        """Samples classified right; None where that is not known."""
        if labels is None or self.classes is None:
            return None
        return int((outputs[0].reshape(len(labels), -1).argmax(1) == labels).sum())

    def _squared(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        pairs = [(found, expected) for found, expected in zip(outputs, wanted) if found.is_floating_point()]
        return sum((found - expected).square().mean() / expected.square().mean().clamp_min(1e-12) for found, expected in pairs)
