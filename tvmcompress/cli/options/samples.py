"""The options that name the samples which a compression uses, and which of them precisions are chosen on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .data import ReadOptions, skipping
from .recipe import RecipeOptions

if TYPE_CHECKING:
    from ...data.dataset import Dataset
    from ...model import Model
    from ...recipe.recipe import Recipe

OPTIMISTIC = (
    "chosen on the samples that are evaluated here, so the accuracy is optimistic; "
    "choose on others (--search-data FILE or --search-split 0.5)"
)

_data = partial(typer.Option, rich_help_panel="Data")


@dataclass(frozen=True)
class Samples:
    """The samples of a compression.

    Attributes:
        calibration, training, search, evaluation: None where not given or not needed.
        optimistic: Whether precisions are chosen on the samples that are evaluated.
    """

    calibration: Dataset | None
    training: Dataset | None
    search: Dataset | None
    evaluation: Dataset | None
    optimistic: bool


@dataclass(frozen=True)
class SampleOptions:
    """Where the samples of a compression are."""

    calib: Annotated[Path | None, _data(help="Samples of what the model will see: .npz, .npy or a folder of .npy.")] = None
    calib_synthetic: Annotated[
        int | None,
        _data(metavar="N", min=1, help="Without data: make N samples from the model's batch normalizations (needs PyTorch)."),
    ] = None
    train_data: Annotated[
        Path | None,
        typer.Option(help="What it learns from, with labels or without: .npz, ...", rich_help_panel="Fine-tuning"),
    ] = None
    eval_data: Annotated[Path | None, _data("--eval", help="Labelled data: accuracy before and after.")] = None
    eval_skip: Annotated[int, _data(min=0, help="Leave out the first samples of --eval.")] = 0
    search_data: Annotated[Path | None, _data(help="Samples that --max-drop and --min-snr hold on (--eval by default).")] = None
    search_split: Annotated[
        float | None,
        _data(metavar="FRACTION", help="They hold on this part of --eval; the rest is evaluated."),
    ] = None
    search_log: Annotated[
        Path | None,
        typer.Option(
            help="Keep what the search tries in this file, and go on with what is there.",
            rich_help_panel="Quantization",
        ),
    ] = None

    cache: Annotated[
        Path | None, _data(help="Keep the result of every step in this folder; the same again is not computed.")
    ] = None

    def check(self, asked: RecipeOptions, *plans: Recipe) -> None:
        """Refuse options that say nothing for any of the recipes, before anything is read.

        Raises:
            UserError: There is one.
        """
        from ...errors import UserError
        from ...steps.plan import planned

        reads = {data for plan in plans for step in planned(plan) for data in step.reads}
        compresses = any(plan.entries() for plan in plans)
        searches = any(plan.searches for plan in plans)
        gated = any(plan.gate is not None for plan in plans) or None
        for value, option, needed, need in (
            (self.calib, "--calib", compresses, "a step that uses it (--prune 0.5, --quantize int8)"),
            (self.calib_synthetic, "--calib-synthetic", compresses, "a step that uses it (--prune 0.5, --quantize int8)"),
            (asked.calib_samples, "--calib-samples", self.calib is not None, "--calib FILE"),
            (self.train_data, "--train-data", "training" in reads, "--finetune EPOCHS (or --qat)"),
            (self.eval_skip or None, "--eval-skip", self.eval_data is not None, "--eval FILE"),
            (self.search_data, "--search-data", "search" in reads, _SEARCH),
            (self.search_split, "--search-split", "search" in reads, _SEARCH),
            (self.search_split, "--search-split", self.eval_data is not None, "--eval FILE"),
            (self.search_log, "--search-log", searches, _SEARCH),
            (gated, "--gate-drop or --gate-accuracy", self.eval_data is not None, "--eval FILE"),
            (self.cache, "--cache", compresses, "a step whose result is kept (--prune 0.5, --quantize int8)"),
        ):
            if value is not None and not needed:
                raise UserError(f"{option} says nothing without {need}")
        if self.calib is not None and self.calib_synthetic is not None:
            raise UserError("give either --calib or --calib-synthetic, not both")
        if self.search_data is not None and self.search_split is not None:
            raise UserError("give either --search-data or --search-split, not both")
        if searches and self.search_data is None and self.eval_data is None:
            raise UserError(
                "precisions are chosen on samples that are not calibrated on; give some with --search-data or --eval"
            )

    def load(self, plan: Recipe, model: Model, read: ReadOptions, dry: bool = False) -> Samples:
        """The samples for a recipe.

        Args:
            plan: What is to be done.
            model: The model.
            read: How files are read.
            dry: Whether samples that would be made are not wanted, only whether they could be.

        Raises:
            UserError: Samples cannot be read, or do not fit.
        """
        from ...compression import DEFAULT_SAMPLES
        from ...data.splits import split
        from ...errors import UserError

        def samples(path: Path | None, limit: int | None = None) -> Dataset | None:
            return None if path is None else read.load(path, model.inputs, limit=limit)

        calibration = samples(self.calib, plan.calibration_samples or DEFAULT_SAMPLES)
        if self.calib_synthetic is not None:
            from ...training.synthesis import synthesize

            calibration = synthesize(model, 1, steps=1) if dry else synthesize(model, self.calib_synthetic)
        training = samples(self.train_data)
        evaluation = samples(self.eval_data)
        if evaluation is not None:
            evaluation = skipping(evaluation, self.eval_skip, "--eval-skip")
            if plan.gate is not None and plan.gate.min_accuracy is not None and evaluation.labels is None:
                raise UserError(f"--gate-accuracy needs labels, and {self.eval_data} has none; --gate-drop does not")
        search = samples(self.search_data)
        optimistic = False
        if search is None and (plan.searches or self.search_split is not None):
            if self.search_split is not None and evaluation is not None:
                search, evaluation = split(evaluation, self.search_split)
            else:
                search, optimistic = evaluation, True
        return Samples(calibration, training, search, evaluation, optimistic)


_SEARCH = "a limit for choosing precisions (--max-drop 0.5)"
