"""`tvmcompress distill`: a network of another architecture learns from one or several that are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from .dry_run import save_command_recipe, write_command_recipe
from .options.command_recipe import CommandRecipeOptions, command_recipe
from .options.data import ReadOptions
from .options.groups import with_groups
from .options.model import ModelOptions
from .process import command_line
from .progress import Bars, bars

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..model import Model
    from ..report.record import ModelRecord

_DEFAULT_OUTPUT = Path("out")
_EPOCHS = 10
_RANKING_SAMPLES = 64
"""Samples on which blocks are ranked."""
_REPAIR_SAMPLES = 1000
"""Samples, at most, on which the weights of a student made of the teacher are solved for before it learns."""


@with_groups
def distill(
    ctx: typer.Context,
    student: Annotated[
        Path | None,
        typer.Argument(help="The network that learns, as compress takes one.", show_default="made by --width or --depth"),
    ] = None,
    *,
    teacher: Annotated[
        list[Path], typer.Option("--teacher", help="What it learns from (repeatable: their outputs are averaged).")
    ],
    train_data: Annotated[Path, typer.Option(help="What it learns on, with labels or without.", rich_help_panel="Data")],
    eval_data: Annotated[
        Path | None, typer.Option("--eval", help="Labelled data that judges teachers and student.", rich_help_panel="Data")
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION", help="The student is the teacher with this fraction of its channels, the largest ones."
        ),
    ] = None,
    depth: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="It has this fraction of the teacher's blocks and layers that can be left out; the others matter least.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything that comes out.")] = _DEFAULT_OUTPUT,
    epochs: Annotated[int, typer.Option(min=1, help="Times that all samples are seen.")] = _EPOCHS,
    hint: Annotated[
        list[str] | None,
        typer.Option(metavar="STUDENT=TEACHER", help="A layer that shall come close to one of the teacher (repeatable)."),
    ] = None,
    hint_weight: Annotated[float | None, typer.Option(help="Of --hint beside the outputs.", show_default="1")] = None,
    temperature: Annotated[float | None, typer.Option(help="That softens predictions.", show_default="4")] = None,
    alpha: Annotated[float | None, typer.Option(help="Share of the teacher beside labels.", show_default="0.9")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The largest.", show_default="found by a test")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Of its training: adamw, sgd or muon.", show_default="adamw")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a step.", show_default="64")] = None,
    augment: Annotated[list[str] | None, typer.Option(help="Images changed at random: flip, crop, scale (repeatable).")] = None,
    cutmix: Annotated[
        float | None,
        typer.Option(help="Share of the batches in which a part of every image is that of another.", show_default="0"),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            help="After so many epochs the same changes come again; teachers are asked about each once.", show_default="never"
        ),
    ] = None,
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="Compute in bfloat16 in training: faster where processors have it.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="For all that is random.", show_default="0")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for the state after every epoch; a stopped run goes on.")
    ] = None,
    reading: ModelOptions,
    read: ReadOptions,
    asked: CommandRecipeOptions,
    json: common.JsonOption = False,
) -> None:
    """Train a student on what teachers say, and on labels where there are some.

    The student is a float model with the teacher's inputs and outputs, of any architecture; one that is made of the
    teacher has its weights repaired from the training data first. What comes out is a float model, for compress. The folder
    gets model.tvmc, model.onnx, recipe.toml and report.json.
    """
    from ..errors import UserError
    from ..exporting import export_onnx
    from ..files.output_folder import output_folder
    from ..recipe.recipe import as_finetune_recipe
    from ..report.record import Host, Report
    from ..training.finetuning import finetune

    fields: dict[str, Any] = {
        "epochs": epochs,
        "hints": _hints(hint),
        "hint_weight": hint_weight,
        "temperature": temperature,
        "alpha": alpha,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "batch_size": batch_size,
        "augment": augment or None,
        "cutmix": cutmix,
        "views": views,
        "mixed_precision": mixed_precision or None,
        "seed": seed,
    }
    options = {name: value for name, value in fields.items() if value is not None}
    as_finetune_recipe(options)
    if hint_weight is not None and not hint:
        raise UserError("--hint-weight says nothing without --hint STUDENT=TEACHER")
    if (student is None) == (width is None and depth is None):
        raise UserError("give a student, or --width 0.5 or --depth 0.5 for one that is made of the teacher, and not both")
    teachers = [reading.load(path) for path in teacher]
    begun = teachers[0] if student is None else reading.load(student)
    learned = read.load(train_data, begun.inputs)
    begun = begun if depth is None else _shallow(begun, depth, learned)
    begun = begun if width is None else _narrow(begun, width)
    judged = None if eval_data is None else read.load(eval_data, begun.inputs)
    recipe = command_recipe(ctx)
    if asked.dry_run:
        write_command_recipe(recipe, output, json)
        return
    with output_folder(output) as folder:
        with bars() as bar:
            begun = begun if student is not None else _repaired(begun, teachers[0], learned, bar)
            taught = finetune(
                begun,
                learned,
                teacher=teachers,
                checkpoint=checkpoint,
                on_progress=lambda done, total: bar("distill", done, total),
                **options,
            )
            models = {**_named(teacher, teachers), "student": begun, "distilled": taught}
            records = tuple(_judged(name, model, judged, bar) for name, model in models.items())
        report = Report(source=teacher[0].name, host=Host.this(), models=records, command=command_line())
        taught.save(folder / "model.tvmc")
        export_onnx(taught, folder / "model.onnx")
        report.model_copy(update={"files": ("model.onnx", "model.tvmc", "recipe.toml", "report.json")}).save(
            folder / "report.json"
        )
        save_command_recipe(recipe, folder)
    if json:
        common.print_json(report)
        return
    from ..report.console import models_table

    console = common.output()
    console.print(models_table(records, common.is_wide(console)))
    console.print(taught.provenance[-1].removeprefix("fine-tuned: "))
    console.print(f"Written to {output}: model.tvmc, model.onnx, recipe.toml, report.json.")


def _hints(entries: list[str] | None) -> dict[str, str] | None:
    from ..errors import UserError

    found = {}
    for entry in entries or []:
        own, equals, other = entry.partition("=")
        if not (own and equals and other):
            raise UserError(f"--hint {entry} is not of the form STUDENT_LAYER=TEACHER_LAYER")
        found[own] = other
    return found or None


def _shallow(teacher: Model, depth: float, data: Dataset) -> Model:
    """The teacher with a fraction of its blocks."""
    from ..errors import UserError
    from ..passes import PruneBlocks
    from ..passes.pruning.prune_blocks import find_blocks

    if not 0 < depth < 1:
        raise UserError(f"--depth {depth:g} is no fraction between 0 and 1, both excluded")
    blocks = len({block.name for block in find_blocks(teacher.module)})
    gone = round((1 - depth) * blocks)
    if gone == 0:
        raise UserError(f"--depth {depth:g} leaves the teacher as it is: {blocks} of its blocks and layers can be left out")
    removal = PruneBlocks(data.first(_RANKING_SAMPLES).inputs(), gone)
    return teacher.apply(removal, note=f"{depth:g} of the teacher's blocks")


def _narrow(teacher: Model, width: float) -> Model:
    """The teacher with a fraction of its channels."""
    from ..errors import UserError
    from ..passes import PruneChannels

    if not 0 < width < 1:
        raise UserError(f"--width {width:g} is no fraction between 0 and 1, both excluded")
    return teacher.apply(PruneChannels(1 - width, importance="l2"), note=f"{width:g} of the teacher's channels")


def _repaired(student: Model, teacher: Model, data: Dataset, bar: Bars) -> Model:
    """A student made of the teacher, its layers brought close to the teacher's by least squares, which needs no labels: what
    removal alone leaves is mostly no better than chance."""
    from ..steps.repair import solve_weights

    return solve_weights(student, teacher, data.first(_REPAIR_SAMPLES), lambda done, total, _: bar("repair", done, total))


def _named(paths: list[Path], teachers: list[Model]) -> dict[str, Model]:
    if len(teachers) == 1:
        return {"teacher": teachers[0]}
    return {f"teacher {number}, {path.name}": model for number, (path, model) in enumerate(zip(paths, teachers), start=1)}


def _judged(name: str, model: Model, data: Dataset | None, bar: Bars) -> ModelRecord:
    from ..evaluation.accuracy import evaluate
    from ..report.record import model_record

    if data is None or data.labels is None:
        return model_record(name, model)
    return model_record(name, model, evaluate(model, data, on_progress=lambda done, all_: bar("evaluate", done, all_)))
