"""Which samples training holds back to judge on; whatever comes before training must not see them either."""

from __future__ import annotations

import numpy as np

from ..data.dataset import Dataset
from ..data.splits import take, without
from ..errors import UserError
from ..recipe.finetune import FinetuneRecipe


def learned_and_held(data: Dataset, recipe: FinetuneRecipe) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the samples that are learned from and of those held back, at random by the recipe's seed.

    Args:
        data: What is learned from; what fills one batch of the model stays together.
        recipe: Says which share is held back; at least one batch of the model is.

    Raises:
        UserError: One of the two would be empty.
    """
    unit = data.specs[0].shape[0]
    runs = len(data) // unit
    held = max(1, round(runs * recipe.validation))
    if runs - held < 1:
        raise UserError(f"fine-tuning needs at least two samples, one to hold back; {data.source} has {runs}")
    order = np.random.default_rng(recipe.seed).permutation(runs)
    rows = order[:, None] * unit + np.arange(unit)
    return rows[held:].ravel(), rows[:held].ravel()


def unjudged(calibration: Dataset, training: Dataset, recipe: FinetuneRecipe) -> Dataset:
    """The calibration samples without those on which a training with this recipe chooses its weights.

    A repair that has seen these looks better on them than it is, and training would be thrown away for it. Where nothing else
    is left to calibrate on, they stay.

    Args:
        calibration: What repairs and ranges are made from.
        training: What training learns from, which may be the same samples.
        recipe: Of the training.
    """
    left = without(calibration, take(training, learned_and_held(training, recipe)[1]))
    return left if len(left) else calibration
