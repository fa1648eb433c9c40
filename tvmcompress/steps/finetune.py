"""Training what is left as a recipe asks."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ..data.dataset import Dataset
from ..recipe.finetune import FinetuneRecipe
from ..training import finetune
from ..training.held_back import unjudged
from .base import Context, Need, State, Step


class Finetune(Step[FinetuneRecipe]):
    """Trains the weights that are left, through PyTorch."""

    name, activity, Options = "finetune", "fine-tuning", FinetuneRecipe
    reads = frozenset({"training"})

    @property
    def needs(self) -> frozenset[Need]:
        """Samples, and PyTorch."""
        return frozenset({"training", "torch"})

    def key(self, context: Context) -> dict[str, Any]:
        """The options, and what trains."""
        return {**super().key(context), "torch": version("torch")}

    def unjudged(self, calibration: Dataset, training: Dataset) -> Dataset:
        """All but those held back: a repair that has seen them looks better there than it is, and training is kept for less."""
        return unjudged(calibration, training, self.options)

    def run(self, state: State, context: Context) -> State:
        """Train the model."""
        data = context.training
        assert data is not None
        with context.progress.step("fine-tune") as describe:
            tuned = finetune(
                state.model,
                data,
                teacher=state.original if self.options.distill or data.labels is None else None,
                checkpoint=context.checkpoint,
                on_progress=lambda done, total: context.progress.update("fine-tune", done, total),
                **self.options.model_dump(),
            )
            describe(tuned.provenance[-1].removeprefix("fine-tuned: "))
        return state.with_model(tuned)
