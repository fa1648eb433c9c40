"""Compression, from a recipe and a model to a smaller one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from .data.dataset import DataLike, Dataset, load_data
from .data.outliers import outlier_remarks
from .errors import UserError
from .evaluation.output_parts import poor_output_parts
from .importing import load
from .model import Model, Preprocessing
from .passes import Remark, SurgeryReport, get_remarks, get_surgery
from .passes.graph.analysis import count_macs, param_bytes
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
from .search.mixed_precision import search_samples
from .search.precision_choice import PrecisionChoice
from .steps.base import Context, Data, State
from .steps.cache import StepCache
from .steps.patterns import check_patterns
from .steps.plan import check_needs, planned
from .steps.progress import FinishedStep, Progress, ProgressReporter
from .targets.notebook import html_table
from .targets.registry import get_target

DEFAULT_SAMPLES = 512
"""Samples of the calibration data used where the recipe does not say; more hardly change ranges and repairs."""


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
        steps: What was done, in order, with times; those of what was in the cache are 0.
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
    steps: tuple[FinishedStep, ...]
    remarks: tuple[Remark, ...]
    recipe: Recipe
    precisions: PrecisionChoice | None = None

    @staticmethod
    def untouched(model: Model) -> CompressionResult:
        """A model with which nothing was done."""
        return CompressionResult(model, model, model, None, None, {}, (), (), Recipe())

    def _repr_html_(self) -> str:
        """As notebooks show it: what became less, and what was done."""
        rows: list[tuple[str, object]] = []
        for name, of in (("multiply-accumulates", count_macs), ("bytes of weights", param_bytes)):
            before, after = of(self.original.module), of(self.model.module)
            rows.append((name, f"{after:,} of {before:,} ({after / max(before, 1):.1%})"))
        rows += [(step.name, f"{step.message} ({step.seconds:.2f} s)") for step in self.steps]
        rows += [(f"remark on {remark.subject}", remark.message) for remark in self.remarks]
        return html_table("CompressionResult", rows)


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
    cache: str | PathLike[str] | None = None,
    on_progress: Progress | None = None,
) -> CompressionResult:
    """Compress a model.

    Args:
        model: A float model, or the path of one.
        calibration: Unlabelled samples of what the model will see; see `tvmcompress.data.load_data`. Needed to quantize
            and to repair a pruned model.
        prune: A ratio in (0, 1), or a table of `PruneRecipe`'s fields.
        finetune: A number of epochs, or a table of `FinetuneRecipe`'s fields: training after pruning; needs PyTorch.
        train_data: What fine-tuning learns from, labelled or not; see `tvmcompress.finetune`. Samples that training under
            quantization holds back to choose the epoch are left out of `calibration`.
        checkpoint: A folder in which training keeps its state after every epoch, `brecq` after every block; a stopped run goes
            on there.
        quantize: "int8" or another precision, or a table of `QuantizeRecipe`'s fields.
        recipe: All as one, or the path of its TOML file; `prune`, `finetune` and `quantize` replace its tables. A list of steps
            in it has any order, see `recipe.recipe`.
        calibration_samples: Samples to use at most; by default the recipe's, or `DEFAULT_SAMPLES`.
        preprocessing: How raw data becomes the input; by default what the model says.
        target: What the model is compressed for: pruning keeps to numbers of channels that suit its kernels, and limits of
            flash and RAM are those of the first microcontroller among them.
        search_data: Samples on which the precision of layers is chosen where the recipe limits what quantization may cost;
            those that are calibrated on too are left out.
        search_log: A file that keeps what the search has tried; one that was interrupted goes on with it.
        cache: A folder in which the result of every step is kept: steps that were done before, with the same model, data and
            options, are not done again. It takes at most `steps.cache.LIMIT` bytes.
        on_progress: Told how far each step is.

    Raises:
        UserError: The model or the data cannot be used, an option is out of range, or there is nothing to do.
        MissingToolError: PyTorch is needed and not installed.
    """
    targets = [target] if isinstance(target, str) else list(target or [])
    plan = _plan(recipe, prune, finetune, quantize, calibration_samples)
    steps = planned(plan)
    given: dict[Data, Any] = {"calibration": calibration, "training": train_data, "search": search_data}
    check_needs(steps, {name for name, data in given.items() if data is not None})
    original = model if isinstance(model, Model) else load(model, dense_rounding=plan.dense_rounding)
    if not steps and not (targets and is_quantized(original)):
        raise UserError(
            "there is nothing to do: ask for pruning (--prune 0.5), quantization (--quantize int8) or both; a model that is "
            "quantized already is built as it is for --target"
        )
    if is_quantized(original) and not all(step.takes_integers for step in steps):
        raise UserError("the model is quantized already; compress the float model that it was made from")
    for step in steps:
        if isinstance(step.options, QuantizeRecipe):
            check_patterns(original, step.options)
    limit = plan.calibration_samples or DEFAULT_SAMPLES
    read = {name for step in steps for name in step.reads if given[name] is not None}
    data, training, search = (
        load_data(given[name], original.inputs, preprocessing=preprocessing, limit=limit if name == "calibration" else None)
        if name in read
        else None
        for name in ("calibration", "training", "search")
    )
    if data is not None and training is not None:
        for step in steps:
            data = step.unjudged(data, training)
    if preprocessing is not None:
        original = original.with_preprocessing(preprocessing)
    context = Context(
        calibration=data,
        training=training,
        search=None if search is None else search_samples(search, data),
        target=limited_target(plan, targets),
        multiple=math.lcm(*(get_target(name).description.channel_multiple for name in targets)),
        checkpoint=checkpoint,
        search_log=search_log,
        progress=ProgressReporter(on_progress),
    )
    state, done = State.of(original), 0
    kept = None if cache is None else StepCache(cache, original, steps, context)
    if kept is not None:
        done, state, context.progress.finished[:] = kept.load(state)
    for number, step in enumerate(steps[done:], start=done + 1):
        state = step.run(state, replace(context, ahead=steps[number:]))
        if kept is not None:
            kept.store(number, state, context.progress.finished)
    found = state.records.get("precisions")
    choice = None if found is None else PrecisionChoice.model_validate(found)
    poor = [] if state.qdq_model is None or data is None else poor_output_parts(state.float_model, state.model, data)
    outliers = [] if data is None else outlier_remarks(data)
    return CompressionResult(
        model=state.model,
        original=original,
        float_model=state.float_model,
        qdq_model=state.qdq_model,
        surgery=get_surgery(state.model.module),
        ranges=dict(state.ranges),
        steps=tuple(context.progress.finished),
        remarks=(*get_remarks(state.model.module), *(choice.remarks() if choice is not None else ()), *poor, *outliers),
        recipe=plan if state.chosen is None else _repeatable(plan, state.chosen),
        precisions=choice,
    )


def limited_target(plan: Recipe, targets: Sequence[str]) -> str | None:
    """The target whose flash and RAM the limits of a recipe mean: the first microcontroller.

    Raises:
        UserError: Flash is limited, and there is none among the targets.
    """
    limits = {name for _, table in plan.entries() if isinstance(table, PruneRecipe) for name in table.budgets}
    if not {"max_flash", "max_ram"} & limits:
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
    return Recipe.of({**dict(base), **changes})


def _repeatable(plan: Recipe, chosen: QuantizeRecipe) -> Recipe:
    """The recipe that gives what was chosen without searching."""
    return plan.only(lambda name: name != "choose_precisions").changed("quantize", lambda _: chosen)
