"""Pruning in rounds to a budget, back to the best round where a limit is broken.

Every round is a step of its own: with a cache (`--cache`) a run that was stopped goes on behind its last round, and training
within one where `--checkpoint` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..data.dataset import Dataset
from ..errors import UserError
from ..evaluation.output_comparison import OutputComparison
from ..passes.graph.analysis import count_macs
from ..recipe.finetune import FinetuneRecipe
from ..recipe.iterative import IterativeRecipe
from ..recipe.prune import PruneRecipe
from .base import Context, Need, State, Step
from .finetune import Finetune
from .prune import Prune
from .repair import Repair
from .sparsify import SparsifyWeights

_RECORD = "iterative"


class PruneIteratively(Step[IterativeRecipe]):
    """One round.

    Args:
        options: Of all rounds.
        number: Which this is, from 1.
    """

    name, activity, Options = "prune_iteratively", "pruning in rounds", IterativeRecipe

    def __init__(self, options: IterativeRecipe, number: int = 1) -> None:
        super().__init__(options)
        self._number = number
        what = options.round(number)
        removal: Step[Any] = Prune(what) if isinstance(what, PruneRecipe) else SparsifyWeights(what)
        self._steps: list[Step[Any]] = [removal, *Repair.of_the_rest(True, "", options.solve_blocks)]
        if options.epochs:
            self._steps.append(Finetune(FinetuneRecipe(epochs=options.epochs, distill=options.distill)))

    @classmethod
    def planned(cls, options: IterativeRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """A step for every round."""
        return [cls(options, number) for number in range(1, options.rounds + 1)]

    @property
    def needs(self) -> frozenset[Need]:
        """What its parts need, and samples to choose on where there is a limit."""
        needed: set[Need] = set().union(*(step.needs for step in self._steps))
        return frozenset(needed | {"search"} if self.options.max_drop is not None else needed)

    def key(self, context: Context) -> dict[str, Any]:
        """The options, and what its parts depend on."""
        return {**super().key(context), "round": self._number, "parts": [step.key(context) for step in self._steps]}

    def unjudged(self, calibration: Dataset, training: Dataset) -> Dataset:
        """What the parts leave: of every round all but those that its training holds back, which are the same in each."""
        for step in self._steps:
            calibration = step.unjudged(calibration, training)
        return calibration

    def run(self, state: State, context: Context) -> State:
        """Prune, repair and train, and look at what that has cost.

        Raises:
            UserError: The first round loses more than the limit, so that nothing can be pruned.
        """
        if _RECORD in state.records:
            return state
        done = state
        for step in self._steps:
            done = step.run(done, context)
        with context.progress.step(f"round {self._number} of {self.options.rounds}") as describe:
            left = count_macs(done.model.module) / max(count_macs(state.original.module), 1)
            what = f"{left:.1%} of the multiply-accumulates left" if self.options.sparsity is None else "weights zeroed"
            if self.options.max_drop is None:
                describe(what)
                return done
            drop, kind = _drop(state, done, context)
            if drop <= self.options.max_drop:
                describe(f"{what}, {drop:.2f} points of {kind} lost")
                return done
            describe(f"taken back: {drop:.2f} points of {kind} would be lost, more than {self.options.max_drop:g}")
        if self._number == 1:
            raise UserError(
                f"the first of {self.options.rounds} rounds loses {drop:.2f} points of {kind}, more than max_drop allows; "
                "allow more, or take more rounds or epochs"
            )
        return replace(state, records={**state.records, _RECORD: {"rounds": self._number - 1}})


def _drop(before: State, after: State, context: Context) -> tuple[float, str]:
    """Points lost against the original on the samples to choose on, and of what."""
    assert context.search is not None
    compare = OutputComparison(before.original, context.search)
    found, original = compare(after.model), compare.original
    if original.accuracy is not None and found.accuracy is not None:
        return 100 * (original.accuracy - found.accuracy), "accuracy"
    if found.agreement is None:
        raise UserError("max_drop counts classes, and the model has none; leave it out")
    return 100 * (1 - found.agreement), "agreement"
