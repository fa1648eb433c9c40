"""The recipe's table of pruning in rounds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .prune import PruneRecipe
from .sparsify import SparsifyRecipe
from .table import Table


class IterativeRecipe(Table):
    """Pruning in rounds, each followed by repair and, if wanted, training.

    Attributes:
        target_macs: Fraction of the multiply-accumulates that is left behind the last round.
        sparsity: Fraction of the weights that is zero then, in the place of `target_macs`.
        rounds: How many.
        schedule: How fast: "geometric" takes the same share of what is left in each round, "linear" the same amount, "cubic"
            much at the beginning and ever less (Zhu and Gupta, "To prune, or not to prune", 2017).
        epochs: Of fine-tuning in each round, on the training data; 0 repairs only.
        distill: Whether the original is the teacher then.
        max_drop: Points of accuracy (without labels: of agreement with the original) on the samples to choose on that may be
            lost; a round that loses more is taken back, and those behind it are left out.
        importance: As of pruning.
        selection: As of pruning.
        solve_blocks: As of pruning: whether the repair in each round solves for the layers of a block together.
        exclude: Patterns of layers whose outputs stay.
    """

    target_macs: float | None = Field(default=None, gt=0, lt=1)
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    rounds: int = Field(default=4, ge=1)
    schedule: Literal["geometric", "linear", "cubic"] = "geometric"
    epochs: int = Field(default=0, ge=0)
    distill: bool = True
    max_drop: float | None = Field(default=None, ge=0)
    importance: str | None = None
    selection: Literal["remove", "fold", "best"] = "remove"
    solve_blocks: bool = False
    exclude: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_budget(self) -> IterativeRecipe:
        if (self.target_macs is None) == (self.sparsity is None):
            raise ValueError("give target_macs or sparsity, what the rounds lead to, and one of them")
        if self.sparsity is not None and self.importance is not None:
            raise ValueError("importance ranks channels; single weights are zeroed by magnitude")
        if self.sparsity is not None and self.selection != "remove":
            raise ValueError("selection says how channels leave; single weights are zeroed")
        if self.sparsity is not None and self.solve_blocks:
            raise ValueError("sparse layers are repaired one by one, not block by block; leave solve_blocks out")
        return self

    def left(self, number: int) -> float:
        """The fraction of the multiply-accumulates, or of the weights, that is left behind round `number`, from 1."""
        end = self.target_macs if self.target_macs is not None else 1 - (self.sparsity or 0.0)
        done = number / self.rounds
        if self.schedule == "geometric":
            return float(end**done)
        return float(end + (1 - end) * ((1 - done) ** 3 if self.schedule == "cubic" else 1 - done))

    def round(self, number: int) -> PruneRecipe | SparsifyRecipe:
        """What is removed in round `number`; the repair is a step of its own."""
        left = self.left(number)
        if self.sparsity is not None:
            return SparsifyRecipe(sparsity=1 - left, exclude=self.exclude, reconstruct=False)
        # One round each: the repair comes before the next.
        return PruneRecipe(
            target_macs=left,
            importance=self.importance,
            selection=self.selection,
            exclude=self.exclude,
            rounds=1,
            reconstruct=False,
        )
