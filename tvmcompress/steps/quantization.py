"""Quantization as a recipe has it: ranges from samples, then integers."""

from __future__ import annotations

from collections.abc import Mapping

from ..data.dataset import Dataset
from ..model import Model
from ..passes import LowerQDQ, Quantize, Range, Scheme, calibrate
from ..passes._tvm import relax
from ..passes.graph.rebuild import bindings
from ..passes.numbers.schemes import Precision, Schemes
from ..passes.quantization.plan import plan_quantization
from ..recipe.recipe import QuantizeRecipe
from .progress import Road
from .repair import repair_integers

_BATCH = 32


def find_ranges(road: Road, model: Model, data: Dataset, options: QuantizeRecipe) -> dict[str, Range]:
    """The ranges of the activations of a float model on samples, by tensor.

    They serve any precision of its layers, and layers that stay in float as the recipe has it.
    """
    if not options.needs_ranges:
        return {}
    excluded = Schemes(_schemes(options), options.exclude).stays_float
    whole = plan_quantization(model.module)
    tensors = whole.observed | plan_quantization(model.module, excluded).observed
    if options.searches:
        # Whatever layers stay in float in the end, what is cut are tensors that are cut where none does.
        tensors |= {var.name for var in whole.points}
    with road.step("calibrate") as say:
        ranges = calibrate(
            model.module,
            data.batches(_BATCH),
            options.observer,
            options=options.observer_options,
            overrides={
                # A layer's result is called after the layer and what follows it.
                pattern: (layer.observer, layer.observer_options)
                for name, layer in options.layers.items()
                if layer.observer is not None
                for pattern in (name, f"{name}.*")
            },
            tensors=tensors,
            on_progress=lambda done: road.tell("calibrate", done, len(data)),
        )
        say(f"{len(ranges)} tensors on {len(data)} samples, {options.observer}")
    return ranges


def quantize_model(
    road: Road, model: Model, ranges: Mapping[str, Range], options: QuantizeRecipe, data: Dataset | None = None
) -> tuple[Model, Model]:
    """A float model in integers, as targets run it; and in QDQ form.

    Where no layer computes with integers, both are the float model with its weights stored smaller.

    Args:
        road: Keeps the time.
        model: The float model, after `repair_float`.
        ranges: From `find_ranges`.
        options: What is wanted.
        data: Calibration samples for repairs, which are left out without them.
    """
    weights = {name: layer.weights for name, layer in options.layers.items() if layer.weights is not None}
    weights["*"] = options.weights
    with road.step("quantize") as say:
        qdq = model.apply(
            Quantize(
                ranges,
                weights=weights,
                exclude=options.exclude,
                power_of_two=options.power_of_two,
                symmetric=options.symmetric,
                precision=_schemes(options),
            ),
            note=f"quantized to {options.precision}, {options.observer}, weights {options.weights}",
        )
        say(_summary(options))
    calls = [value for _, value in bindings(qdq.module["main"]) if isinstance(value, relax.Call)]
    if not any(call.op.name == "relax.quantize" for call in calls):
        return qdq, qdq
    qdq = repair_integers(road, qdq, model, data, options)
    with road.step("lower") as say:
        lowered = qdq.apply(LowerQDQ(rounding=options.rounding), note=f"integer operators, {options.rounding} rounding")
        say(f"integer operators, {options.rounding} rounding")
    return lowered, qdq


def _summary(options: QuantizeRecipe) -> str:
    if not options.needs_ranges:
        return options.precision
    return f"{options.precision}, weights {options.weights.replace('_', ' ')}"


def _schemes(options: QuantizeRecipe) -> dict[str, Precision | Scheme]:
    return {pattern: Scheme(**values) for pattern, values in options.schemes().items()}
