"""Zeroing single weights as a recipe asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from ..passes import Sparsify
from ..passes.pruning.sparsify import get_masks
from ..recipe.sparsify import SparsifyRecipe
from .base import Context, State, Step
from .repair import Repair


class SparsifyWeights(Step[SparsifyRecipe]):
    """Zeroes single weights; shapes stay."""

    name, activity, Options = "sparsify", "sparse weights", SparsifyRecipe
    reads = frozenset()

    @classmethod
    def planned(cls, options: SparsifyRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """The weights that stay are repaired, unless a step behind it does."""
        return [cls(options), *Repair.of_the_rest(options.reconstruct, following)]

    def run(self, state: State, context: Context) -> State:
        """Sparsify the model."""
        options = self.options
        with context.progress.step("sparsify") as describe:
            removal = Sparsify(
                options.sparsity,
                method=options.method,
                scope=options.scope,
                threshold=options.threshold,
                pattern=options.kept_of,
                exclude=options.exclude,
            )
            sparse = state.model.apply(removal, note=f"sparsified: {options.describe()}, {options.scope}")
            masks = get_masks(sparse.module).values()
            if not masks:
                raise UserError(f"no layer can have {options.describe()}; exclude fewer layers or ask for another pattern")
            zeros, weights = (sum(count(mask) for mask in masks) for count in (lambda mask: int((~mask).sum()), np.size))
            describe(f"{options.describe()}: {zeros:,} of {weights:,} weights are zero")
        return state.with_model(sparse)
