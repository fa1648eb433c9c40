"""Back to float, so that what works on float models alone can stand behind quantization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..passes import Dequantize
from ..recipe.steps import DequantizeRecipe
from .base import Context, State, Step


class BackToFloat(Step[DequantizeRecipe]):
    """Makes a float model of a quantized one: its weights are those that the integers stand for."""

    name, activity, Options = "dequantize", "leaving quantization", DequantizeRecipe
    reads = frozenset()
    takes_integers = leaves_integers = True

    @classmethod
    def planned(cls, options: DequantizeRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """Behind quantization, of whose weights it makes floats."""
        if not any(step.quantizes for step in before):
            raise UserError("'dequantize' stands behind 'quantize', of whose weights it makes floats; put that in front of it")
        return [cls(options)]

    def run(self, state: State, context: Context) -> State:
        """Leave quantization; a model whose layers all stayed in float is left as it is."""
        with context.progress.step(self.name) as describe:
            if state.qdq_model is None:
                describe("left out: nothing is quantized")
                return state
            model = state.qdq_model.apply(Dequantize(), note="float again, weights as rounded")
            describe("weights as rounded")
        return replace(state.with_model(model), qdq_model=None)
