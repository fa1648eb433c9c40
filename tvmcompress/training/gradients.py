"""The gradient of each sample alone, of a loss that tells what the network's outputs are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import UserError
from .backend import Tensor, load_torch, one_thread
from .bridge import TorchModel, split_samples
from .class_output import ClassOutput

_FIRST = 32
"""Samples from which it is seen what the outputs are."""


class SampleLoss:
    """What is differentiated, one number a sample.

    With labels it is the cross-entropy of the first output. Without labels there is nothing to be wrong about, and the
    cross-entropy against the model's own predictions has no gradient at all. What remains is how far the predictions
    move: the loss is the sum over classes of e_c sqrt(p_c) log p_c, with p the predictions held fixed and e_c drawn as
    +1 or -1. Squares of its gradient have the expectation that squared gradients of the cross-entropy have when labels
    are drawn from the predictions: the Fisher information (Martens, "New Insights and Perspectives on the Natural
    Gradient Method", 2020, section 5), without its rare large terms. Outputs that are not classes count as means of
    normal distributions, as wide as the output's root mean square: the sum of e_i y_i over that width.

    Args:
        outputs: The outputs for some samples.
        labels: Whether there are labels.
        seed: For the draws.

    Raises:
        UserError: There are labels, and the first output holds no classes.
    """

    def __init__(self, outputs: Sequence[Tensor], labels: bool, seed: int = 0) -> None:
        self._torch = load_torch()
        self._draws = self._torch.Generator().manual_seed(seed)
        found = ClassOutput.of(outputs)
        if labels and found is None:
            raise UserError(
                f"the model's first output has shape {tuple(outputs[0].shape[1:])} a sample, which is no list of classes; "
                "give the samples without labels"
            )
        self.classes = found if labels or len(outputs) == 1 else None
        self._widths = [
            max(float(output.square().mean().sqrt()), 1e-12) if output.is_floating_point() else None
            for output in (output.detach() for output in outputs)
        ]

    def __call__(self, outputs: Sequence[Tensor], labels: Tensor | None) -> Tensor:
        """The loss.

        Args:
            outputs: The model's outputs.
            labels: The classes of the samples, int64 (samples,).
        """
        if self.classes is None:
            pairs = [(output, width) for output, width in zip(outputs, self._widths) if width is not None]
            return sum((self._signs(output) * output).sum() / width for output, width in pairs)
        logs = self.classes.logs(outputs)
        if labels is not None:
            return -logs.gather(1, labels[:, None]).sum()
        return (self._signs(logs) * logs.detach().exp().sqrt() * logs).sum()

    def _signs(self, like: Tensor) -> Tensor:
        return self._torch.randint(0, 2, like.shape, generator=self._draws).to(like.dtype) * 2 - 1


def sample_gradients(
    model: TorchModel, samples: Sequence[np.ndarray], labels: np.ndarray | None = None, seed: int = 0
) -> Iterator[dict[str, Tensor]]:
    """The gradient of the loss of each sample alone (of each batch, where the graph's is larger than one).

    Args:
        model: The model; its parameters stay as they are.
        samples: One array an input, axis 0 the samples.
        labels: The class of each sample, integers (samples,).
        seed: For the draws where there are no labels.

    Returns:
        For each sample the gradient by parameter; parameters that the outputs do not depend on are left out.

    Raises:
        UserError: The samples or labels do not fit the model, or what comes out is not finite.
    """
    torch = load_torch()
    batch = model.samples(samples)
    with torch.no_grad(), one_thread():
        first = model(*(value[: _FIRST * (len(value) // batch)] for value in samples))
    loss = SampleLoss(first, labels is not None, seed)
    tensors = [torch.as_tensor(value) for value in samples]
    classes = None if labels is None or loss.classes is None else loss.classes.checked(labels, len(samples[0]))
    wanted = {name: tensor for name, tensor in model.tensors.items() if tensor.requires_grad}
    with one_thread():
        for index, sample in enumerate(split_samples(tensors, batch)):
            rows = len(tensors[0]) // batch
            given = None if classes is None else torch.as_tensor(classes[index * rows : (index + 1) * rows])
            found = torch.autograd.grad(loss(model(*sample), given), list(wanted.values()), allow_unused=True)
            gradients = {name: gradient for name, gradient in zip(wanted, found) if gradient is not None}
            if not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
                raise UserError("the gradients on the calibration samples are not finite; look for NaN in samples and weights")
            yield gradients
