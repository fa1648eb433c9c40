"""`tvmcompress sensitivity`: which layers bear pruning, or quantization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import common
from .dry_run import save_command_recipe, write_command_recipe
from .options.command_recipe import CommandRecipeOptions, command_recipe
from .options.data import ReadOptions
from .options.groups import with_groups
from .options.model import ModelArgument, ModelOptions
from .progress import bars

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..data.dataset import Dataset
    from ..model import Model
    from ..recipe.quantize import QuantizeRecipe
    from ..sensitivity.record import AnalysisRecord

_DEFAULT_OUTPUT = Path("sensitivity")


@with_groups
def sensitivity(
    ctx: typer.Context,
    model: ModelArgument,
    data: Annotated[Path, typer.Argument(help="Samples: .npz, .npy, or a folder of .npy.", show_default=False)],
    *,
    save: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for sensitivity.json and sensitivity.png; an analysis there goes on.")
    ] = _DEFAULT_OUTPUT,
    ratios: Annotated[
        str | None,
        typer.Option(
            "--ratios",
            help="Fractions of each group's channels to remove, with commas.",
            show_default="0.1,0.3,0.5,0.7,0.9",
        ),
    ] = None,
    importance: Annotated[str | None, typer.Option("--importance", help="What channels are ranked by.")] = None,
    quantize: Annotated[
        str | None, typer.Option("--quantize", metavar="TYPE", help="Quantize layers (int8, int4, ...), not prune them.")
    ] = None,
    calib: Annotated[
        Path | None,
        typer.Option(
            "--calib", help="With --quantize: samples for ranges (half of the data by default).", rich_help_panel="Data"
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Use at most so many samples.")] = 200,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw the curves (needs matplotlib).")] = True,
    reading: ModelOptions,
    read: ReadOptions,
    asked: CommandRecipeOptions,
    json: common.JsonOption = False,
) -> None:
    """Prune each group of channels alone, or quantize each layer alone, and see what it costs.

    That is accuracy with labels, else the output's noise. `compress --sensitivity FOLDER/sensitivity.json --target-macs 0.5`
    then spreads the removal by what was measured. With --quantize all layers but one are quantized, too.
    """
    from ..errors import UserError
    from ..passes.pruning.importance import get_criterion
    from ..recipe.recipe import as_quantize_recipe
    from ..sensitivity.channels import DEFAULT_RATIOS

    if quantize is not None and (ratios or importance):
        raise UserError(f"{'--ratios' if ratios else '--importance'} says nothing with --quantize; it is for pruning")
    if calib is not None and quantize is None:
        raise UserError("--calib says nothing without --quantize int8")
    shares = _shares(ratios)
    options = as_quantize_recipe(quantize)
    if plot:
        common.need_matplotlib()
    subject = reading.load(model)
    samples = read.load(data, subject.inputs)
    calibration = None if calib is None else read.load(calib, subject.inputs, limit=limit)
    if importance is not None:
        get_criterion(importance, samples.first(subject.inputs[0].shape[0]).inputs())
    recipe = command_recipe(ctx, **({} if quantize is not None else {"ratios": ",".join(map(str, shares or DEFAULT_RATIOS))}))
    if asked.dry_run:
        write_command_recipe(recipe, save, json)
        return
    try:
        save.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the output folder {save} cannot be written ({error.strerror}); give another one with -o") from error
    place = save / "sensitivity.json"
    picture = save / "sensitivity.png" if plot else None
    if options is None:
        result, shown = _of_pruning(subject, samples.first(limit), shares, importance, place, picture)
    else:
        result, shown = _of_quantization(subject, samples, calibration, options, limit, place, picture)
    save_command_recipe(recipe, save)
    if json:
        common.print_json(result)
        return
    console = common.output()
    console.print(shown)
    console.print(f"Written to {save}: sensitivity.json, {'sensitivity.png, ' if plot else ''}recipe.toml.", highlight=False)


def _shares(ratios: str | None) -> list[float] | None:
    """Fractions from 0.25,0.5."""
    from ..errors import UserError

    if ratios is None:
        return None
    try:
        shares = [float(part) for part in ratios.split(",")]
        if not all(0 < share < 1 for share in shares):
            raise ValueError
    except ValueError:
        raise UserError(f"--ratios {ratios} is not a list of fractions with commas, such as 0.25,0.5") from None
    return shares


def _of_pruning(
    subject: Model,
    samples: Dataset,
    shares: list[float] | None,
    importance: str | None,
    place: Path,
    picture: Path | None,
) -> tuple[AnalysisRecord, RenderableType]:
    """Measure, draw, and make the table."""
    from rich.console import Group

    from ..report.sensitivity import plot_sensitivity, sensitivity_table
    from ..sensitivity.channels import DEFAULT_RATIOS, measure_sensitivity

    with bars() as bar:
        found = measure_sensitivity(
            subject,
            samples,
            importance=importance,
            ratios=shares or DEFAULT_RATIOS,
            save=place,
            on_progress=lambda done, total, group: bar("groups and ratios", done, total),
        )
    if picture is not None:
        plot_sensitivity(found, picture)
    table = sensitivity_table(found)
    return found, table if found.accuracy is None else Group(table, f"Unpruned: {found.accuracy:.1%}.")


def _of_quantization(
    subject: Model,
    samples: Dataset,
    calibration: Dataset | None,
    options: QuantizeRecipe,
    limit: int,
    place: Path,
    picture: Path | None,
) -> tuple[AnalysisRecord, RenderableType]:
    """Measure, draw, and make the table; samples that are calibrated on are not measured on."""
    from ..data.splits import split, spread
    from ..report.quantization_sensitivity import plot_quantization_sensitivity, quantization_sensitivity_table
    from ..search.mixed_precision import search_samples
    from ..search.quantization_sensitivity import measure_quantization_sensitivity

    if calibration is None:
        half, samples = split(samples, 0.5)
        calibration = spread(half, limit)
    measured = search_samples(spread(samples, limit), calibration)
    with bars() as bar:
        found = measure_quantization_sensitivity(
            subject,
            calibration,
            measured,
            options,
            save=place,
            on_progress=lambda done, total, layer: bar("layers", done, total),
        )
    if picture is not None:
        plot_quantization_sensitivity(found, picture)
    return found, quantization_sensitivity_table(found)
