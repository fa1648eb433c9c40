"""Distillation without labels: a compressed network learns from the one that it was made from, on calibration samples alone.

Least squares repairs one layer after the other; here all of them move together. Few samples are enough because what is
learned is a function: where there are few, the teacher is asked about mixtures of them, which never come again (Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent", 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import UserError
from ..model import Model
from ..passes.graph.analysis import count_macs, layers
from ..recipe.finetune import FinetuneRecipe
from ..recipe.table import read_table
from .backend import load_torch
from .bridge import TorchModel
from .checkpoint import Checkpoint
from .finetuning import Training
from .rates import find_rate

Progress = Callable[[int, int], None]

_SECONDS = 200.0
"""What it shall take about, by the two figures below, unless the number of epochs is said; it may be twice that."""

_SECONDS_OF_A_MAC, _SECONDS_OF_AN_ELEMENT = 1.1e-11, 1.4e-9
_BACKWARDS = 3
"""A step takes so many times as long as a forward pass."""

_FEWEST_EPOCHS, _MOST_EPOCHS = 4, 400
_TRIALS = (1 / 16, 1 / 4)
"""The two lengths that are compared, as shares of the epochs; of half of the samples, twice: a quarter of all the time."""

_ENOUGH = 500
"""So many samples are learned from as they are; fewer are mixed, lest the network learn them by heart."""

_FEWEST_SAMPLES = 8
_LARGEST_BATCH = 32
"""More steps of fewer samples leave less of the loss in the same time."""

_COLOURS = 3
"""Images of so many channels are photographs: flipped and shifted they are further samples, and the original says of what."""

_BATCHES = 6
"""Steps of an epoch at least, so that few samples are not one batch."""


def learn_from_original(
    model: Model,
    original: Model,
    data: Dataset,
    on_progress: Progress | None = None,
    checkpoint: str | PathLike[str] | None = None,
    **options: Any,
) -> Model:
    """Train a compressed float model to do what its original does.

    How long is decided by cross-validation, unless there are hundreds of samples that are changed at random: each half of the
    samples is learned from for a short and for a longer time, and the other half says which of the two left it better off. Then
    all samples are learned from. What comes out is compared with what went in, and does not replace it unless it is closer to
    the original.

    Args:
        model: As pruning and least squares have left it.
        original: What it was made from; its layers have the same names.
        data: Samples; labels are not looked at.
        on_progress: Told steps done, out of how many.
        checkpoint: A folder in which the state after every epoch is kept: a run that was stopped goes on there.
        options: Fields of `FinetuneRecipe`; `epochs` are by default as many as take about three minutes on one core.

    Returns:
        The model with other weights.

    Raises:
        MissingToolError: PyTorch is not installed.
        UnsupportedOperatorError: There are no gradients for an operator.
        UserError: An option is out of range, there are too few samples, or the models' outputs differ in shape.
    """
    load_torch()
    unit = data.specs[0].shape[0]
    runs = len(data) // unit
    if runs < _FEWEST_SAMPLES:
        raise UserError(f"distillation without labels needs at least {_FEWEST_SAMPLES} samples; {data.source} has {runs}")
    data = replace(data, labels=None)
    recipe = read_table(FinetuneRecipe, {**_defaults(model, original, len(data)), **options}, "repair.options.")
    steps = _Counter(on_progress)
    numbers = count()

    def run(training: Training, held: np.ndarray) -> float:
        """The loss on some samples behind a whole run; infinite where that ended before its end."""
        place = None if checkpoint is None else Checkpoint(Path(checkpoint) / str(next(numbers)), training.fingerprint())
        try:
            training.run(place, steps)
        except UserError:
            return math.inf
        return training.loss(held)

    everything = _rows(np.random.default_rng(recipe.seed).permutation(runs), unit)

    def prepared(learned: np.ndarray, epochs: int, rate: float | None) -> Training:
        its = recipe.model_copy(update={"epochs": epochs, "learning_rate": rate})
        return Training(model, TorchModel(model.module), data, original, its, split=(learned, learned[:0]))

    training = prepared(everything, recipe.epochs, recipe.learning_rate)
    before = training.loss(everything)
    rate = recipe.learning_rate or find_rate(training)
    epochs, told = recipe.epochs, ""
    lengths = [max(1, round(share * epochs)) for share in _TRIALS]
    # What is seen changed every time, and there is much of it, is not learned by heart.
    if lengths[1] > lengths[0] and not (recipe.augment and len(data) >= _ENOUGH):
        halves = [_rows(part, unit) for part in np.array_split(everything[::unit] // unit, 2)]
        losses = np.zeros(2)
        for learned, held in (halves, halves[::-1]):
            for place, length in enumerate(lengths):
                trial = prepared(learned, length, rate)
                losses[place] += run(trial, held) / 2
        if not losses[1] <= losses[0]:
            epochs = lengths[1]
        told = f" of {recipe.epochs} (cross-validated: {losses[0]:.4g} after {lengths[0]}, {losses[1]:.4g} after {lengths[1]})"
    training = prepared(everything, epochs, rate)
    after = run(training, everything)
    change = f"loss {before:.4g}, then {after:.4g}"
    if not after < before:
        return _noted(model, f"distillation from the original does not pay: {change}")
    tuned = replace(training.result(), provenance=model.provenance)
    note = f"distilled from the original: {epochs} epochs{told} on {len(data)} samples, learning rate {rate:.2g}; {change}"
    return _noted(tuned, note)


class _Counter:
    """Adds up the steps of several runs."""

    def __init__(self, report: Progress | None) -> None:
        self._report, self._before, self._last = report, 0, 0

    def __call__(self, done: int, total: int) -> None:
        if done <= self._last:
            self._before += self._last
        self._last = done
        if self._report is not None:
            self._report(self._before + done, self._before + total)


def _noted(model: Model, note: str) -> Model:
    return replace(model, provenance=(*model.provenance, note))


def _rows(order: np.ndarray, unit: int) -> np.ndarray:
    return (order[:, None] * unit + np.arange(unit)).ravel()


def _defaults(model: Model, original: Model, samples: int) -> dict[str, Any]:
    spec = model.inputs[0]
    costs = [
        count_macs(made.module) * _SECONDS_OF_A_MAC
        + sum(math.prod(layer.output_shape) for layer in layers(made.module)) * _SECONDS_OF_AN_ELEMENT
        for made in (model, original)
    ]
    epoch = samples / spec.shape[0] * (_BACKWARDS * costs[0] + costs[1])
    few = {"mixup": 1.0, "features": 1.0} if samples < _ENOUGH else {"temperature": 2.0}
    photographs = len(spec.shape) == 4 and spec.layout != "NHWC" and spec.shape[1] == _COLOURS
    compared = not photographs or samples < _ENOUGH
    epochs = round(_SECONDS / epoch / (1 + sum(_TRIALS) if compared else 1))
    return {
        "epochs": min(max(epochs, _FEWEST_EPOCHS), _MOST_EPOCHS),
        "batch_size": min(_LARGEST_BATCH, max(8, samples // _BATCHES)),
        **({"augment": ("flip", "crop")} if photographs else {}),
        **few,
    }
