"""The choice of precisions as a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..recipe.quantize import QuantizeRecipe
from ..steps.base import Context, Need, State, Step
from ..steps.quantize import preparation
from .mixed_precision import choose_precisions, chosen_recipe


class ChoosePrecisions(Step[QuantizeRecipe]):
    """Chooses a precision for each layer under a limit on what quantization may cost."""

    name, activity, Options = "choose_precisions", "choosing precisions", QuantizeRecipe
    reads = frozenset({"calibration", "search"})
    keeps_ranges = True

    @classmethod
    def planned(cls, options: QuantizeRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """Ranges are found before, unless they are there already."""
        if not options.searches:
            raise UserError("'choose_precisions' keeps to a limit; give it max_drop or min_snr")
        if following != "quantize":
            raise UserError("what 'choose_precisions' chooses is for 'quantize'; put that behind it")
        return [*preparation(options, before), cls(options)]

    @property
    def needs(self) -> frozenset[Need]:
        """Samples to try on."""
        return frozenset({"search"})

    def run(self, state: State, context: Context) -> State:
        """Choose precisions."""
        data, progress = context.search, context.progress
        assert data is not None
        with progress.step("choose precisions") as describe:
            choice = choose_precisions(
                state.model,
                state.ranges,
                data,
                self.options,
                calibration=context.calibration,
                save=context.search_log,
                on_progress=progress.update,
            )
            describe(choice.summary())
        chosen = chosen_recipe(self.options, state.model, choice)
        return replace(state, chosen=chosen, records={**state.records, "precisions": choice.model_dump()})
