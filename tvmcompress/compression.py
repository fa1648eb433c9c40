"""The road from a model to a smaller one: prune, repair, fine-tune, calibrate, quantize."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from .data.dataset import DataLike, Dataset, load_data
from .errors import UserError
from .importing import load
from .model import Model, Preprocessing
from .passes import Remark, SurgeryReport, get_remarks, get_surgery
from .passes.graph.rebuild import bindings
from .passes.lowering.lower_qdq import is_lowered
from .recipe.recipe import (
    FinetuneRecipe,
    PruneRecipe,
    QuantizeRecipe,
    Recipe,
    as_finetune_recipe,
    as_prune_recipe,
    as_quantize_recipe,
)
from .search.mixed_precision import choose_precisions, chosen_recipe, search_samples
from .search.precision_choice import PrecisionChoice
from .search.precision_trials import stays_float
from .steps.progress import Progress, Road, Step
from .steps.pruning import prune as prune_model
from .steps.pruning import sparsify
from .steps.quantization import find_ranges, quantize_model
from .steps.repair import repair_float
from .targets.registry import get_target
from .training import finetune as train
from .training.backend import load_torch

DEFAULT_SAMPLES = 512
"""Samples of the calibration data used where the recipe does not say; more hardly change ranges and repairs."""

_BATCH = 32


@dataclass(frozen=True)
class CompressionResult:
    """What `compress` gives: the model, and what was done to it.

    Attributes:
        model: The compressed model: integer where it was quantized.
        original: The model that went in.
        float_model: The model before quantization: pruned and fine-tuned, if it was.
        qdq_model: The quantized model in QDQ form; None where it was not quantized.
        surgery: What was pruned; None where nothing was.
        ranges: The ranges of the activations by tensor; empty where it was not quantized.
        steps: What was done, in order, with times.
        remarks: What the passes had to say.
        recipe: What was asked for, and the precisions that were chosen.
        precisions: How they were; None where none was to be.
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
    precisions: PrecisionChoice | None = None


def compress(
    model: Model | str | PathLike[str],
    calibration: DataLike | Dataset | None = None,
    *,
    prune: PruneRecipe | float | dict[str, Any] | None = None,
    finetune: FinetuneRecipe | int | dict[str, Any] | None = None,
    train_data: DataLike | Dataset | None = None,
    checkpoint: str | PathLike[str] | None = None,
    quantize: QuantizeRecipe | str | dict[str, Any] | None = None,
    recipe: Recipe | str | PathLike[str] | None = None,
    calibration_samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    target: str | Sequence[str] | None = None,
    search_data: DataLike | Dataset | None = None,
    search_log: str | PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> CompressionResult:
    """Compress a model.

    Args:
        model: A float model, or the path of one.
        calibration: Unlabelled samples of what the model will see; see `tvmcompress.data.load_data`. Needed to quantize
            and to repair a pruned model.
        prune: A ratio in (0, 1), or a table of `PruneRecipe`'s fields.
        finetune: A number of epochs, or a table of `FinetuneRecipe`'s fields: training after pruning; needs PyTorch.
        train_data: What fine-tuning learns from, labelled or not; see `tvmcompress.finetune`.
        checkpoint: A folder in which fine-tuning keeps its state after every epoch, and goes on where it was.
        quantize: "int8" or another precision, or a table of `QuantizeRecipe`'s fields.
        recipe: All as one, or the path of its TOML file; `prune`, `finetune` and `quantize` replace its tables.
        calibration_samples: Samples to use at most; by default the recipe's, or `DEFAULT_SAMPLES`.
        preprocessing: How raw data becomes the input; by default what the model says.
        target: What the model is compressed for: pruning keeps to numbers of channels that suit its kernels, and limits of
            flash and RAM are those of the first microcontroller among them.
        search_data: Samples on which the precision of layers is chosen where the recipe limits what quantization may cost;
            those that are calibrated on too are left out.
        search_log: A file that keeps what the search has tried; one that was interrupted goes on with it.
        on_progress: Told how far each step is.

    Raises:
        UserError: The model or the data cannot be used, an option is out of range, or there is nothing to do.
        MissingToolError: PyTorch is needed and not installed.
    """
    targets = [target] if isinstance(target, str) else list(target or [])
    plan = _plan(recipe, prune, finetune, quantize, calibration_samples)
    road = Road(on_progress)
    original = model if isinstance(model, Model) else load(model)
    if is_quantized(original):
        raise UserError("the model is quantized already; compress the float model that it was made from")
    data = None
    if calibration is not None:
        limit = plan.calibration_samples or DEFAULT_SAMPLES
        data = load_data(calibration, original.inputs, preprocessing=preprocessing, limit=limit)
    elif plan.quantize is not None and plan.quantize.needs_ranges:
        raise UserError("quantization needs calibration data; give samples of what the model will see (--calib data.npz)")
    if preprocessing is not None:
        original = original.with_preprocessing(preprocessing)
    samples = None if plan.finetune is None else _training_data(train_data, original)

    tried_on: Dataset | None = None
    if plan.quantize is not None and plan.quantize.searches:
        if search_data is None:
            raise UserError("precisions are chosen on samples that are not calibrated on; give some (--search-data or --eval)")
        tried_on = search_samples(load_data(search_data, original.inputs, preprocessing=preprocessing), data)

    current = original
    if plan.prune is not None:
        current = prune_model(
            road,
            original,
            data,
            plan.prune,
            target=limited_target(plan, targets),
            multiple=math.lcm(*(get_target(name).description.channel_multiple for name in targets)),
            precision="float32" if plan.quantize is None else "int8",
            finish=None if plan.quantize is None or data is None else _draft(data, plan.quantize),
        )
    if plan.sparsify is not None:
        current = sparsify(road, current, original, data, plan.sparsify)
    if plan.finetune is not None and samples is not None:
        current = _finetune(road, current, original, samples, plan.finetune, checkpoint)
    float_model = current
    qdq: Model | None = None
    ranges: dict[str, Any] = {}
    choice: PrecisionChoice | None = None
    if plan.quantize is not None:
        options = plan.quantize
        current = repair_float(road, float_model, data, options)
        ranges = find_ranges(road, current, data, options) if data is not None else {}
        if tried_on is not None:
            with road.step("choose precisions") as say:
                choice = choose_precisions(
                    current, ranges, tried_on, options, calibration=data, save=search_log, on_progress=road.tell
                )
                say(choice.summary())
            options = chosen_recipe(options, current, choice)
            plan = plan.model_copy(update={"quantize": options})
        if choice is None or not stays_float(current, options):
            current, qdq = quantize_model(road, current, ranges, options, data)
    return CompressionResult(
        model=current,
        original=original,
        float_model=float_model,
        qdq_model=qdq,
        surgery=get_surgery(current.module),
        ranges=ranges,
        steps=tuple(road.steps),
        remarks=(*get_remarks(current.module), *(choice.remarks() if choice is not None else ())),
        recipe=plan,
        precisions=choice,
    )


def limited_target(plan: Recipe, targets: Sequence[str]) -> str | None:
    """The target whose flash and RAM the limits of a recipe mean: the first microcontroller.

    Raises:
        UserError: Flash is limited, and there is none among the targets.
    """
    limits = plan.prune.budgets if plan.prune is not None else {}
    if not {"max_flash", "max_ram"} & set(limits):
        return None
    found = next((name for name in targets if get_target(name).description.family == "cortex-m"), None)
    if found is None and "max_flash" in limits:
        raise UserError("max_flash counts what is built for a microcontroller; add one, for instance --target cortex-m4")
    return found


def is_quantized(model: Model) -> bool:
    """Whether a model computes with integers: in QDQ form, or in integer operators."""
    names = {getattr(getattr(value, "op", None), "name", "") for _, value in bindings(model.module["main"])}
    return "relax.quantize" in names or is_lowered(model.module)


def _plan(
    recipe: Recipe | str | PathLike[str] | None, prune: Any, finetune: Any, quantize: Any, calibration_samples: int | None
) -> Recipe:
    base = Recipe() if recipe is None else recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    changes: dict[str, Any] = {}
    if prune is not None:
        changes["prune"] = as_prune_recipe(prune)
    if finetune is not None:
        changes["finetune"] = as_finetune_recipe(finetune)
    if quantize is not None:
        changes["quantize"] = as_quantize_recipe(quantize)
    if calibration_samples is not None:
        changes["calibration_samples"] = calibration_samples
    plan = base.model_copy(update=changes)
    if all(step is None for step in (plan.prune, plan.quantize, plan.sparsify, plan.finetune)):
        raise UserError("there is nothing to do: ask for pruning (--prune 0.5), quantization (--quantize int8) or both")
    return plan


def _training_data(given: DataLike | Dataset | None, model: Model) -> Dataset:
    """What fine-tuning learns from; what it lacks is said before anything is done."""
    load_torch()
    if given is None:
        raise UserError("fine-tuning needs samples to learn from; give them (--train-data train.npz)")
    return load_data(given, model.inputs)


def _finetune(
    road: Road,
    model: Model,
    original: Model,
    data: Dataset,
    options: FinetuneRecipe,
    checkpoint: str | PathLike[str] | None,
) -> Model:
    with road.step("fine-tune") as say:
        teacher = original if options.distill or data.labels is None else None
        tuned = train(
            model,
            data,
            teacher=teacher,
            checkpoint=checkpoint,
            on_progress=lambda done, total: road.tell("fine-tune", done, total),
            **options.model_dump(),
        )
        say(tuned.provenance[-1].removeprefix("fine-tuned: "))
    return tuned


def _draft(data: Dataset, options: QuantizeRecipe) -> Callable[[Model], Model]:
    """Quantization from few samples: the figures of what is built hardly depend on the ranges."""
    few = data.first(_BATCH)

    def quantize(model: Model) -> Model:
        road = Road(None)
        return quantize_model(road, model, find_ranges(road, model, few, options), options)[0]

    return quantize
