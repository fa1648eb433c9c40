"""Training a quantized model under its quantization as a recipe asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..errors import UserError
from ..passes import LowerQDQ
from ..recipe.finetune import FinetuneRecipe
from ..recipe.quantize import QuantizeRecipe
from ..training.fake_quantization import train_quantized
from ..training.held_back import unjudged
from .base import Context, Need, State, Step


class TrainQuantized(Step[FinetuneRecipe]):
    """Trains a model in QDQ form, through PyTorch, and makes integers of what it has become.

    Args:
        options: As of fine-tuning.
        rounding: Of requantization, as the step that quantizes has it.
    """

    name, activity, Options = "qat", "training under quantization", FinetuneRecipe
    reads = frozenset({"training"})
    takes_integers = quantizes = True

    def __init__(self, options: FinetuneRecipe, rounding: str = "double") -> None:
        super().__init__(options)
        self._rounding = rounding

    @classmethod
    def planned(cls, options: FinetuneRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """Behind quantization, whose rounding it keeps."""
        made = next((step.options for step in reversed(before) if step.quantizes), None)
        if made is None:
            raise UserError("'qat' trains under quantization and stands behind it; put 'quantize' in front (--quantize int8)")
        return [cls(options, made.rounding if isinstance(made, QuantizeRecipe) else "double")]

    @property
    def needs(self) -> frozenset[Need]:
        """Samples, and PyTorch."""
        return frozenset({"training", "torch"})

    def key(self, context: Context) -> dict[str, Any]:
        """The options, what trains, and how results are rounded."""
        return {**super().key(context), "torch": version("torch"), "rounding": self._rounding}

    def unjudged(self, calibration: Dataset, training: Dataset) -> Dataset:
        """All but those held back, which say whether training has brought anything over what repairs have left."""
        return unjudged(calibration, training, self.options)

    def run(self, state: State, context: Context) -> State:
        """Train the model; one whose layers all stay in float is left as it is."""
        data, qdq = context.training, state.qdq_model
        assert data is not None
        with context.progress.step("train quantized") as describe:
            if qdq is None or qdq is state.model:
                describe("left out: nothing computes with integers")
                return state
            tuned = train_quantized(
                qdq,
                data,
                original=state.float_model,
                teacher=state.original if self.options.distill or data.labels is None else None,
                checkpoint=None if context.checkpoint is None else Path(context.checkpoint) / self.name,
                on_progress=lambda done, total: context.progress.update("train quantized", done, total),
                **self.options.model_dump(),
            )
            describe(tuned.provenance[-1].removeprefix("fine-tuned: "))
        lowered = tuned.apply(LowerQDQ(rounding=self._rounding), note=f"integer operators, {self._rounding} rounding")
        return replace(state, model=lowered, qdq_model=tuned)
