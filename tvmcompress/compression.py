"""The road from a model to a smaller one: prune, repair, calibrate, quantize."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np

from .data import DataLike, Dataset, load_data
from .errors import UserError
from .importing import load
from .model import Model, Preprocessing
from .passes import (
    LowerQDQ,
    PruneChannels,
    Quantize,
    Reconstruct,
    Remark,
    SurgeryReport,
    calibrate,
    get_remarks,
    get_surgery,
)
from .passes.analysis import count_macs, count_params, layers
from .passes.rebuild import bindings
from .recipe import PruneRecipe, QuantizeRecipe, Recipe, as_prune_recipe, as_quantize_recipe

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, and how much of it is done, out of how much."""

DEFAULT_SAMPLES = 512
"""Samples of the calibration data used where the recipe does not say; more hardly change ranges and repairs."""

_REPAIR_BYTES = 1 << 28
"""The largest tensor of a repair, which runs on all its samples at once, takes at most this."""

_BATCH = 32


@dataclass(frozen=True)
class Step:
    """One thing that was done.

    Attributes:
        name: What.
        seconds: How long it took.
        message: What came of it.
    """

    name: str
    seconds: float
    message: str


@dataclass(frozen=True)
class CompressionResult:
    """What came out.

    Attributes:
        model: The compressed model: integer where it was quantized.
        original: The model that went in.
        float_model: The model before quantization: pruned, if it was.
        qdq_model: The quantized model in QDQ form; None where it was not quantized.
        surgery: What was pruned; None where nothing was.
        ranges: The ranges of the activations by tensor; empty where it was not quantized.
        steps: What was done, in order, with times.
        remarks: What the passes had to say.
        recipe: What was asked for.
    """

    model: Model
    original: Model
    float_model: Model
    qdq_model: Model | None
    surgery: SurgeryReport | None
    ranges: dict[str, Any]
    steps: tuple[Step, ...]
    remarks: tuple[Remark, ...]
    recipe: Recipe


def compress(
    model: Model | str | PathLike[str],
    calibration: DataLike | Dataset | None = None,
    *,
    prune: PruneRecipe | float | dict[str, Any] | None = None,
    quantize: QuantizeRecipe | str | dict[str, Any] | None = None,
    recipe: Recipe | str | PathLike[str] | None = None,
    calibration_samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    on_progress: Progress | None = None,
) -> CompressionResult:
    """Compress a model.

    Args:
        model: A float model, or the path of one.
        calibration: Unlabelled samples of what the model will see; see `tvmcompress.data.load_data`. Needed to quantize
            and to repair a pruned model.
        prune: A ratio in (0, 1), or a table of `PruneRecipe`'s fields.
        quantize: "int8", or a table of `QuantizeRecipe`'s fields.
        recipe: Both as one, or the path of its TOML file; `prune` and `quantize` replace its tables.
        calibration_samples: Samples to use at most; by default the recipe's, or `DEFAULT_SAMPLES`.
        preprocessing: How raw data becomes the input; by default what the model says.
        on_progress: Told how far each step is.

    Raises:
        UserError: The model or the data cannot be used, an option is out of range, or there is nothing to do.
    """
    plan = _plan(recipe, prune, quantize, calibration_samples)
    road = _Road(on_progress)
    original = model if isinstance(model, Model) else load(model)
    if is_quantized(original):
        raise UserError("the model is quantized already; compress the float model that it was made from")
    data = None
    if calibration is not None:
        limit = plan.calibration_samples or DEFAULT_SAMPLES
        data = load_data(calibration, original.inputs, preprocessing=preprocessing, limit=limit)
    elif plan.quantize is not None:
        raise UserError("quantization needs calibration data; give samples of what the model will see (--calib data.npz)")
    if preprocessing is not None:
        original = original.with_preprocessing(preprocessing)

    current = original
    if plan.prune is not None:
        current = _prune(road, original, data, plan.prune)
    float_model = current
    qdq: Model | None = None
    ranges: dict[str, Any] = {}
    if plan.quantize is not None and data is not None:
        current, qdq, ranges = _quantize(road, float_model, data, plan.quantize)
    return CompressionResult(
        model=current,
        original=original,
        float_model=float_model,
        qdq_model=qdq,
        surgery=get_surgery(current.module),
        ranges=ranges,
        steps=tuple(road.steps),
        remarks=tuple(get_remarks(current.module)),
        recipe=plan,
    )


def is_quantized(model: Model) -> bool:
    """Whether a model computes with integers: in QDQ form, or in integer operators."""
    names = {getattr(getattr(value, "op", None), "name", "") for _, value in bindings(model.module["main"])}
    return any(name == "relax.quantize" or name.startswith("tvmcompress.q") for name in names)


def _plan(recipe: Recipe | str | PathLike[str] | None, prune: Any, quantize: Any, calibration_samples: int | None) -> Recipe:
    base = Recipe() if recipe is None else recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    changes: dict[str, Any] = {}
    if prune is not None:
        changes["prune"] = as_prune_recipe(prune)
    if quantize is not None:
        changes["quantize"] = as_quantize_recipe(quantize)
    if calibration_samples is not None:
        changes["calibration_samples"] = calibration_samples
    plan = base.model_copy(update=changes)
    if plan.prune is None and plan.quantize is None:
        raise UserError("there is nothing to do: ask for pruning (--prune 0.5), quantization (--quantize int8) or both")
    return plan


@dataclass
class _Road:
    """Keeps the time, and tells how far the work is."""

    on_progress: Progress | None
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time what stands inside; the callable takes what came of it."""
        said: list[str] = []
        self.tell(name, 0, 1)
        start = time.perf_counter()
        yield said.append
        self.steps.append(Step(name, time.perf_counter() - start, " ".join(said)))
        self.tell(name, 1, 1)

    def tell(self, name: str, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(name, done, total)


def _prune(road: _Road, original: Model, data: Dataset | None, options: PruneRecipe) -> Model:
    with road.step("prune") as say:
        removal = PruneChannels(
            options.ratio,
            importance=options.importance,
            scope=options.scope,
            round_to=options.round_to,
            exclude=options.exclude,
            ratios=options.ratios,
            min_channels=options.min_channels,
        )
        pruned = original.apply(
            removal, note=f"pruned: {options.ratio:g} of the channels, {options.importance}, {options.scope}"
        )
        before, after = count_macs(original.module), count_macs(pruned.module)
        say(
            f"{before:,} to {after:,} multiply-accumulates, "
            f"{count_params(original.module):,} to {count_params(pruned.module):,} parameters"
        )
        if get_surgery(pruned.module) is None:
            raise UserError(_nothing_to_prune(pruned))
    if not options.reconstruct:
        return pruned
    if data is None:
        with road.step("repair") as say:
            say("left out: it needs calibration data")
        return pruned
    with road.step("repair") as say:
        samples = data.first(_repair_samples(original))
        repair = Reconstruct(
            original.module, samples.inputs(), on_progress=lambda done, total, _: road.tell("repair", done, total)
        )
        pruned = pruned.apply(repair, note=f"weights repaired by least squares on {len(samples)} samples")
        say(f"by least squares on {len(samples)} samples")
    return pruned


def _nothing_to_prune(model: Model) -> str:
    reasons = [f"{remark.subject}: {remark.message}" for remark in get_remarks(model.module)]
    return "no channel could be removed" + (f" ({reasons[0]})" if reasons else "; ask for a larger ratio")


def _repair_samples(model: Model) -> int:
    """How many samples a repair may use."""
    largest = max(math.prod(layer.output_shape) for layer in layers(model.module)) * np.dtype(np.float32).itemsize
    return max(1, _REPAIR_BYTES // largest) * model.inputs[0].shape[0]


def _quantize(road: _Road, model: Model, data: Dataset, options: QuantizeRecipe) -> tuple[Model, Model, dict[str, Any]]:
    with road.step("calibrate") as say:
        ranges = calibrate(
            model.module,
            data.batches(_BATCH),
            options.observer,
            options=options.observer_options,
            on_progress=lambda done: road.tell("calibrate", done, len(data)),
        )
        say(f"{len(ranges)} tensors on {len(data)} samples, {options.observer}")
    with road.step("quantize") as say:
        qdq = model.apply(
            Quantize(ranges, weights=options.weights, exclude=options.exclude),
            note=f"quantized to {options.precision}, {options.observer}, weights {options.weights}",
        )
        lowered = qdq.apply(LowerQDQ(rounding=options.rounding), note=f"integer operators, {options.rounding} rounding")
        say(f"{options.precision}, weights {options.weights.replace('_', ' ')}, {options.rounding} rounding")
    return lowered, qdq, ranges
