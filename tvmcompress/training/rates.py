"""Learning rates: how they rise and fall, and how large one may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .finetuning import Training

_STEPS = 60
_LOWEST = {"adamw": 3e-4, "muon": 3e-4, "sgd": 1e-5}
_HIGHEST = {"adamw": 0.1, "muon": 0.1, "sgd": 1.0}
_MEMORY = 0.9
"""Of the running mean of the losses, which batches scatter."""

_RISEN = 1.25
"""A loss so many times the least one means that the rate has become too large."""

_BELOW = 2.0
"""The rate used is so many times less than that at which the loss rises."""


def scheduled(done: int, total: int, warmup: float) -> float:
    """The share of the learning rate in a step: rising evenly, then falling along a cosine to zero.

    Args:
        done: Steps before it.
        total: Steps in all.
        warmup: Share of them in which the rate rises.
    """
    rising = round(warmup * total)
    if done < rising:
        return (done + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (done - rising) / (total - rising)))


def find_rate(training: Training) -> float:
    """A learning rate for a network, its data and what it learns, by raising it step by step until the loss rises.

    (Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3.) Only the samples that are learned
    from are looked at, and the network is put back.

    Args:
        training: What is going to be run.
    """
    kind = training.recipe.optimizer
    rates = np.geomspace(_LOWEST[kind], _HIGHEST[kind], _STEPS)
    rng = np.random.default_rng([training.recipe.seed, _STEPS])
    before, optimizer = training.values(), training.optimizer(float(rates[0]))
    smooth, least, found = 0.0, math.inf, float(rates[-1])
    for step, (rate, indices) in enumerate(zip(rates, training.batches(rng, _STEPS)), start=1):
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * float(rate / rates[0])
        try:
            loss = training.learn([indices], rng, optimizer)
        except ArithmeticError:
            found = float(rate)
            break
        smooth = _MEMORY * smooth + (1 - _MEMORY) * loss
        mean = smooth / (1 - _MEMORY**step)
        least = min(least, mean)
        if step > _STEPS // 6 and mean > _RISEN * least:
            found = float(rate)
            break
    training.put(before)
    return float(f"{found / _BELOW:.2g}")
