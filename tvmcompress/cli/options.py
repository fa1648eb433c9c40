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
TargetMacsOption = Annotated[
    float | None,
    typer.Option(
        "--target-macs", metavar="FRACTION", help="Prune until so much of the MACs is left.", rich_help_panel=_PRUNING
    ),
]
TargetParamsOption = Annotated[
    float | None,
    typer.Option(
        "--target-params", metavar="FRACTION", help="Prune until so much of the parameters is left.", rich_help_panel=_PRUNING
    ),
]
MaxFlashOption = Annotated[
    str | None,
    typer.Option(
        "--max-flash",
        metavar="SIZE",
        help="Prune until code and constants fit, on the Cortex-M among the targets (64K, 1M).",
        rich_help_panel=_PRUNING,
    ),
]
MaxRamOption = Annotated[
    str | None,
    typer.Option("--max-ram", metavar="SIZE", help="Prune until activations fit (16K).", rich_help_panel=_PRUNING),
]
BlocksOption = Annotated[
    int | None,
    typer.Option(
        "--prune-blocks", min=0, metavar="N", help="First remove up to N residual blocks or layers.", rich_help_panel=_PRUNING
    ),
]
HeadsOption = Annotated[
    float | None,
    typer.Option("--prune-heads", metavar="RATIO", help="First remove this fraction of the heads.", rich_help_panel=_PRUNING),
]
SparsifyOption = Annotated[
    str | None,
    typer.Option(
        "--sparsify",
        metavar="FRACTION|N:M",
        help="Zero a fraction of the weights, or all but N of M.",
        rich_help_panel=_PRUNING,
    ),
]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        help="The fraction leaves every layer (local), all together (global), or all built alike (isomorphic).",
        rich_help_panel=_PRUNING,
    ),
]
ImportanceOption = Annotated[
    str | None,
    typer.Option(
        "--importance",
        help="What channels are ranked by: output_energy (the default with --calib), l2 (without), l1, reconstruction, "
        "activation, apoz, fpgm, taylor and fisher (these need PyTorch), ...",
        rich_help_panel=_PRUNING,
    ),
]
SensitivityOption = Annotated[
    Path | None,
    typer.Option(
        "--sensitivity",
        help="A sensitivity.json: compare layers by what `tvmcompress sensitivity` measured.",
        rich_help_panel=_PRUNING,
    ),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        "--rounds", min=1, help="Reach a budget in so many steps, ranking anew after each.", rich_help_panel=_PRUNING
    ),
]
MinChannelsOption = Annotated[
    int | None,
    typer.Option("--min-channels", min=1, help="Keep at least this many channels.", rich_help_panel=_PRUNING),
]
RoundToOption = Annotated[
    int | None,
    typer.Option(
        "--round-to",
        min=1,
        help="Keep multiples of this many channels (by default what suits the targets).",
        rich_help_panel=_PRUNING,
    ),
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
    typer.Option("--observer", help="How ranges are found: minmax, percentile, ...", rich_help_panel=_QUANTIZATION),
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
PowerOfTwoOption = Annotated[
    bool | None,
    typer.Option(
        "--power-of-two/--free-scales",
        help="Scales are powers of two, so that rescaling is a shift.",
        show_default="free-scales",
        rich_help_panel=_QUANTIZATION,
    ),
]
OnnxOption = Annotated[
    bool | None,
    typer.Option(
        "--onnx/--no-onnx",
        help="Also write model.onnx, for ONNX Runtime and others.",
        show_default="onnx where it has a form in ONNX",
    ),
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
    prune_options: dict[str, Any],
    sparsify: str | None,
    quantize: str | None,
    quantize_options: dict[str, Any],
    calibration_samples: int | None,
) -> Recipe:
    """The recipe of a command: the file's, with what options say put in its place.

    Args:
        path: The file.
        prune_options: Fields of the table of pruning; None and empty lists were not given.
        sparsify: A fraction, or a pattern N:M.
        quantize: The precision.
        quantize_options: Further fields of the table of quantization.
        calibration_samples: How many to use.

    Raises:
        UserError: An option is out of range, stands without the step it belongs to, or there is nothing to do.
    """
    from ..errors import UserError
    from ..recipe import BUDGETS, Recipe, as_prune_recipe

    base = Recipe() if path is None else Recipe.load(path)
    if prune_options.get("ratio") is not None:
        as_prune_recipe(prune_options["ratio"])
    if prune_options.get("sensitivity") is not None:
        prune_options = {**prune_options, "sensitivity": str(prune_options["sensitivity"])}
    prune_options = {**prune_options, **{name: _size(name, prune_options.get(name)) for name in ("max_flash", "max_ram")}}
    values = base.model_dump(exclude_none=True, exclude_unset=True)
    amounts = ("ratio", *BUDGETS)
    for table, mains, options in (
        ("prune", (*amounts, "blocks", "heads"), prune_options),
        ("quantize", ("precision",), {"precision": quantize, **quantize_options}),
    ):
        given = {key: value for key, value in options.items() if value is not None and value != []}
        asked = any(main in given for main in mains) or table in values
        if given and not asked:
            option = next(iter(given)).replace("_", "-")
            need = "--prune RATIO or a budget (--target-macs 0.5)" if table == "prune" else "--quantize int8"
            raise UserError(f"--{_OPTION_NAMES.get(option, option)} says nothing without {need}")
        if given:
            # A ratio on the command line takes the place of the file's budgets, and the other way round.
            replaced = amounts if any(name in given for name in amounts) else ()
            kept = {key: value for key, value in values.get(table, {}).items() if key not in replaced}
            values[table] = {**kept, **given}
    if sparsify is not None:
        values["sparsify"] = {**values.get("sparsify", {}), **_sparsity(sparsify)}
    if calibration_samples is not None:
        values["calibration_samples"] = calibration_samples
    return Recipe.of(values)


def _size(name: str, text: str | None) -> int | None:
    """Bytes from 65536, 64K, 64KB or 0.5M."""
    from ..errors import UserError

    if text is None:
        return None
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    factor = {"K": 1024, "M": 1024**2}.get(number[-1:], 1)
    try:
        size = float(number[:-1] if factor > 1 else number) * factor
        if not 1 <= size < 2**40:
            raise ValueError
    except ValueError:
        raise UserError(f"--{name.replace('_', '-')} {text} is not a size such as 65536, 64K or 1M") from None
    return int(size)


def _sparsity(text: str) -> dict[str, Any]:
    """The fields that --sparsify sets."""
    from ..errors import UserError

    if ":" in text:
        return {"pattern": text}
    try:
        return {"sparsity": float(text)}
    except ValueError:
        raise UserError(f"--sparsify {text} is neither a fraction such as 0.5 nor a pattern such as 2:4") from None


_OPTION_NAMES = {"reconstruct": "repair"}
