"""Quantization as a recipe has it: a float model and its ranges become integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from os import PathLike
from typing import Any

from ..data.dataset import Dataset
from ..errors import UserError
from ..model import Model
from ..passes import LowerQDQ, Quantize, Range
from ..passes._tvm import relax
from ..passes.graph.rebuild import bindings
from ..passes.quantization.units import quantization_units
from ..passes.repair.repairs import REPAIRS
from ..recipe.quantize import QuantizeRecipe
from ..recipe.steps import RepairRecipe
from .base import Context, Need, State, Step
from .calibrate import Calibrate, schemes
from .progress import ProgressReporter
from .registry import STEPS
from .repair import Repair, repair_integers


class QuantizeModel(Step[QuantizeRecipe]):
    """Makes integers of a float model: first in QDQ form, then in integer operators."""

    name, activity, Options = "quantize", "quantization", QuantizeRecipe
    reads = frozenset({"calibration"})
    quantizes = True

    @classmethod
    def planned(cls, options: QuantizeRecipe, before: Sequence[Step[Any]], following: str) -> list[Step[Any]]:
        """Repairs of the float model, ranges and the choice of precisions come before it, but for what stands there already."""
        if before and before[-1].name == "choose_precisions":
            if options.model_fields_set:
                field = min(options.model_fields_set)
                raise UserError(f"{field} says nothing in 'quantize' behind 'choose_precisions'; give it there")
            return [cls(before[-1].options)]
        choosing = [STEPS["choose_precisions"](options)] if options.searches else []
        return [*preparation(options, before), *choosing, cls(options)]

    @property
    def needs(self) -> frozenset[Need]:
        """Calibration data, where there are integers."""
        return frozenset({"calibration"}) if self.options.needs_ranges else frozenset()

    def run(self, state: State, context: Context) -> State:
        """Quantize the model, unless precisions were chosen and all layers stay in float."""
        if state.chosen is not None and stays_float(state.model, state.chosen):
            return state
        options = state.chosen or self.options
        model, qdq = quantize_model(
            state.model, state.ranges, options, context.calibration, context.progress, context.checkpoint
        )
        return replace(state, model=model, qdq_model=qdq)


def preparation(options: QuantizeRecipe, before: Sequence[Step[Any]]) -> list[Step[Any]]:
    """What comes before quantization or a search for precisions: repairs of the float model, and its ranges.

    Raises:
        UserError: Options are for ranges that a step before finds.
    """
    if any(step.name == "calibrate" for step in takewhile(lambda step: step.keeps_ranges, reversed(before))):
        for field in ("observer", "observer_options"):
            if field in options.model_fields_set:
                raise UserError(f"{field} says nothing behind the step 'calibrate'; give it there")
        floats = [name for name in options.repairs if REPAIRS[name].of_float]
        if floats:
            raise UserError(f"'{floats[0]}' comes before ranges are found; make it a step 'repair' in front of 'calibrate'")
        return []
    repairs = [
        Repair(RepairRecipe(method=name, options=options.repair_options.get(name, {})), optional=True)
        for name in options.repairs
        if REPAIRS[name].of_float
    ]
    return [*repairs, *([Calibrate(options)] if options.needs_ranges else [])]


def quantize_model(
    model: Model,
    ranges: Mapping[str, Range],
    options: QuantizeRecipe,
    data: Dataset | None = None,
    progress: ProgressReporter | None = None,
    checkpoint: str | PathLike[str] | None = None,
) -> tuple[Model, Model]:
    """A float model in integers, as targets run it; and in QDQ form.

    Where no layer computes with integers, both are the float model with its weights stored smaller.

    Args:
        model: The float model, after the repairs that prepare it.
        ranges: From `find_ranges`.
        options: What is wanted.
        data: Calibration samples for repairs, which are left out without them.
        progress: Told what is done.
        checkpoint: A folder for the state of repairs that go on where they were.
    """
    progress = progress or ProgressReporter()
    weights = {name: layer.weights for name, layer in options.layers.items() if layer.weights is not None}
    weights["*"] = options.weights
    with progress.step("quantize") as describe:
        qdq = model.apply(
            Quantize(
                ranges,
                weights=weights,
                exclude=options.exclude,
                power_of_two=options.power_of_two,
                symmetric=options.symmetric,
                precision=schemes(options),
            ),
            note=f"quantized to {options.precision}, {options.observer}, weights {options.weights}",
        )
        describe(_summary(options))
    calls = [value for _, value in bindings(qdq.module["main"]) if isinstance(value, relax.Call)]
    if not any(call.op.name == "relax.quantize" for call in calls):
        return qdq, qdq
    qdq = repair_integers(qdq, model, data, options, progress, checkpoint)
    with progress.step("lower") as describe:
        lowered = qdq.apply(LowerQDQ(rounding=options.rounding), note=f"integer operators, {options.rounding} rounding")
        describe(f"integer operators, {options.rounding} rounding")
    return lowered, qdq


def stays_float(model: Model, options: QuantizeRecipe) -> bool:
    """Whether a recipe leaves all layers in float."""
    return all(options.precision_of(unit.name) == "float32" for unit in quantization_units(model.module))


def _summary(options: QuantizeRecipe) -> str:
    if not options.needs_ranges:
        return options.precision
    return f"{options.precision}, weights {options.weights.replace('_', ' ')}"
