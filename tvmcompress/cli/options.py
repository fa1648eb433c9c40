"""The options that say what is to be done with a model, shared by `compress` and `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..recipe import Recipe

_PRUNING, _QUANTIZATION, _TARGETS, _DATA = "Pruning", "Quantization", "Targets", "Data"

CalibOption = Annotated[
    Path | None,
    typer.Option("--calib", help="Samples of what the model will see: .npz, .npy or a folder of .npy.", rich_help_panel=_DATA),
]
CalibSamplesOption = Annotated[
    int | None,
    typer.Option("--calib-samples", min=1, help="Use at most so many of them (512 by default).", rich_help_panel=_DATA),
]
EvalOption = Annotated[
    Path | None, typer.Option("--eval", help="Labelled data: accuracy before and after.", rich_help_panel=_DATA)
]
EvalSkipOption = Annotated[
    int, typer.Option("--eval-skip", min=0, help="Leave out the first samples of --eval.", rich_help_panel=_DATA)
]
PruneOption = Annotated[
    float | None,
    typer.Option("--prune", metavar="RATIO", help="Remove this fraction of the channels.", rich_help_panel=_PRUNING),
]
ScopeOption = Annotated[
    str | None,
    typer.Option("--scope", help="local: the fraction from every layer; global: from all together.", rich_help_panel=_PRUNING),
]
ImportanceOption = Annotated[
    str | None, typer.Option("--importance", help="Rank channels by l1 or l2 norm.", rich_help_panel=_PRUNING)
]
RoundToOption = Annotated[
    int | None,
    typer.Option("--round-to", min=1, help="Keep multiples of this many channels.", rich_help_panel=_PRUNING),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Layers to leave alone (repeatable).", rich_help_panel=_PRUNING),
]
RepairOption = Annotated[
    bool | None,
    typer.Option(
        "--repair/--no-repair",
        help="Repair the weights left, from --calib.",
        show_default="repair",
        rich_help_panel=_PRUNING,
    ),
]
QuantizeOption = Annotated[
    str | None, typer.Option("--quantize", metavar="TYPE", help="Quantize to int8.", rich_help_panel=_QUANTIZATION)
]
ObserverOption = Annotated[
    str | None,
    typer.Option("--observer", help="How ranges are found: minmax or percentile.", rich_help_panel=_QUANTIZATION),
]
KeepFloatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-float", metavar="PATTERN", help="Layers that stay in float (repeatable).", rich_help_panel=_QUANTIZATION
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", help="One scale per_channel or per_tensor.", rich_help_panel=_QUANTIZATION),
]
RoundingOption = Annotated[
    str | None,
    typer.Option("--rounding", help="double: as TFLite rounds; single: faster.", rich_help_panel=_QUANTIZATION),
]
RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", help="A TOML file that says all this; options replace its entries.")
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", "-t", help="Build and measure for this target (repeatable).", rich_help_panel=_TARGETS),
]
TuneOption = Annotated[
    int,
    typer.Option("--tune", min=0, metavar="N", help="Try N schedules on this machine first (x86).", rich_help_panel=_TARGETS),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of an inference on x86.", rich_help_panel=_TARGETS)
]


def recipe_of(
    path: Path | None,
    prune: float | None,
    prune_options: dict[str, Any],
    quantize: str | None,
    quantize_options: dict[str, Any],
    calibration_samples: int | None,
) -> Recipe:
    """The recipe of a command: the file's, with what options say put in its place.

    Raises:
        UserError: An option is out of range, stands without the step it belongs to, or there is nothing to do.
    """
    from ..errors import UserError
    from ..recipe import Recipe, as_prune_recipe

    base = Recipe() if path is None else Recipe.load(path)
    if prune is not None:
        as_prune_recipe(prune)
    values = base.model_dump(exclude_none=True)
    for table, main, options in (
        ("prune", {"ratio": prune}, prune_options),
        ("quantize", {"precision": quantize}, quantize_options),
    ):
        given = {key: value for key, value in {**main, **options}.items() if value is not None and value != []}
        asked = next(iter(main.values())) is not None or table in values
        if given and not asked:
            option = next(iter(given)).replace("_", "-")
            need = "--prune RATIO" if table == "prune" else "--quantize int8"
            raise UserError(f"--{_OPTION_NAMES.get(option, option)} says nothing without {need}")
        if given:
            values[table] = {**values.get(table, {}), **given}
    if calibration_samples is not None:
        values["calibration_samples"] = calibration_samples
    return Recipe.of(values)


_OPTION_NAMES = {"reconstruct": "repair"}
