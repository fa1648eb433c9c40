"""The options that make up a recipe: the commands that compress carry them all, and get the recipe."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

from . import options as opt

if TYPE_CHECKING:
    from ..recipe.recipe import Recipe


@dataclass(frozen=True)
class _Field:
    """What an option sets.

    Attributes:
        option: The option, as Typer takes it.
        table: The table of the recipe; empty for what is no field of a table.
        field: The field of the table.
    """

    option: Any
    table: str = ""
    field: str = ""


OPTIONS: dict[str, _Field] = {
    "recipe": _Field(opt.RecipeOption),
    "calib_samples": _Field(opt.CalibSamplesOption),
    "prune": _Field(opt.PruneOption, "prune", "ratio"),
    "target_macs": _Field(opt.TargetMacsOption, "prune", "target_macs"),
    "target_params": _Field(opt.TargetParamsOption, "prune", "target_params"),
    "max_flash": _Field(opt.MaxFlashOption, "prune", "max_flash"),
    "max_ram": _Field(opt.MaxRamOption, "prune", "max_ram"),
    "prune_blocks": _Field(opt.BlocksOption, "prune", "blocks"),
    "prune_heads": _Field(opt.HeadsOption, "prune", "heads"),
    "sparsify": _Field(opt.SparsifyOption),
    "scope": _Field(opt.ScopeOption, "prune", "scope"),
    "importance": _Field(opt.ImportanceOption, "prune", "importance"),
    "sensitivity": _Field(opt.SensitivityOption, "prune", "sensitivity"),
    "round_to": _Field(opt.RoundToOption, "prune", "round_to"),
    "min_channels": _Field(opt.MinChannelsOption, "prune", "min_channels"),
    "rounds": _Field(opt.RoundsOption, "prune", "rounds"),
    "exclude": _Field(opt.ExcludeOption, "prune", "exclude"),
    "ratio": _Field(opt.RatiosOption, "prune", "ratios"),
    "threshold": _Field(opt.ThresholdOption, "prune", "threshold"),
    "repair": _Field(opt.RepairOption, "prune", "reconstruct"),
    "finetune": _Field(opt.FinetuneOption, "finetune", "epochs"),
    "distill": _Field(opt.DistillOption, "finetune", "distill"),
    "optimizer": _Field(opt.OptimizerOption, "finetune", "optimizer"),
    "learning_rate": _Field(opt.LearningRateOption, "finetune", "learning_rate"),
    "augment": _Field(opt.AugmentOption, "finetune", "augment"),
    "quantize": _Field(opt.QuantizeOption, "quantize", "precision"),
    "preset": _Field(opt.PresetOption, "quantize", "preset"),
    "weight_bits": _Field(opt.WeightBitsOption, "quantize", "weight_bits"),
    "activation_bits": _Field(opt.ActivationBitsOption, "quantize", "activation_bits"),
    "group_size": _Field(opt.GroupSizeOption, "quantize", "group_size"),
    "observer": _Field(opt.ObserverOption, "quantize", "observer"),
    "weights": _Field(opt.WeightsOption, "quantize", "weights"),
    "keep_float": _Field(opt.KeepFloatOption, "quantize", "exclude"),
    "rounding": _Field(opt.RoundingOption, "quantize", "rounding"),
    "quant_repair": _Field(opt.QuantRepairOption, "quantize", "repair"),
    "max_drop": _Field(opt.MaxDropOption, "quantize", "max_drop"),
    "min_snr": _Field(opt.MinSnrOption, "quantize", "min_snr"),
    "power_of_two": _Field(opt.PowerOfTwoOption, "quantize", "power_of_two"),
    "symmetric": _Field(opt.SymmetricOption, "quantize", "symmetric"),
}
"""By the name of the parameter, in the order of the help."""

_MAINS = {
    "prune": ("ratio", "threshold", "blocks", "heads"),
    "finetune": ("epochs",),
    "quantize": ("precision", "preset"),
}
_NEEDS = {
    "prune": "--prune RATIO or a budget (--target-macs 0.5)",
    "finetune": "--finetune EPOCHS",
    "quantize": "--quantize int8",
}
"""Fields that ask for a step; those beside them say nothing alone. Budgets ask for pruning, too."""


_SPARSITIES = ("sparsity", "threshold", "pattern")
"""Fields of the table of sparsity of which one says how much."""


def with_recipe(function: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter `plan` of a command by all options that make up a recipe; the command gets the recipe."""
    signature = inspect.signature(function)
    annotations = {name: value for name, value in function.__annotations__.items() if name != "plan"}
    hints = get_type_hints(SimpleNamespace(__annotations__=annotations), function.__globals__, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name == "plan":
            parameters += [
                inspect.Parameter(option, parameter.kind, default=None, annotation=field.option)
                for option, field in OPTIONS.items()
            ]
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @functools.wraps(function)
    def run(**given: Any) -> None:
        options = {name: given.pop(name) for name in OPTIONS}
        function(plan=recipe_of(options), **given)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return run


def recipe_of(options: Mapping[str, Any]) -> Recipe:
    """The recipe of a command: the file's, with what options say put in its place.

    Args:
        options: Values by names of `OPTIONS`; None and empty lists were not given.

    Raises:
        UserError: An option is out of range, stands without the step it belongs to, or there is nothing to do.
    """
    from ..errors import UserError
    from ..recipe.recipe import BUDGETS, Recipe, as_prune_recipe

    path = options["recipe"]
    base = Recipe() if path is None else Recipe.load(path)
    if options["prune"] is not None:
        as_prune_recipe(options["prune"])
    values = base.model_dump(exclude_none=True, exclude_unset=True)
    amounts = ("ratio", "threshold", *BUDGETS)
    for table, mains in _MAINS.items():
        named = {
            name: field.field
            for name, field in OPTIONS.items()
            if field.table == table and options[name] is not None and options[name] != []
        }
        given = {field: _plain(name, options[name]) for name, field in named.items()}
        asked = table in values or any(field in (*mains, *BUDGETS) for field in given)
        if given and not asked:
            option = next(iter(named)).replace("_", "-")
            raise UserError(f"--{option} says nothing without {_NEEDS[table]}")
        if given:
            # A ratio on the command line takes the place of the file's budgets, and the other way round.
            replaced = amounts if any(name in given for name in amounts) else ()
            kept = {key: value for key, value in values.get(table, {}).items() if key not in replaced}
            values[table] = {**kept, **given}
    if options["sparsify"] is not None:
        kept = {key: value for key, value in values.get("sparsify", {}).items() if key not in _SPARSITIES}
        values["sparsify"] = {**kept, **_sparsity(options["sparsify"])}
    if options["calib_samples"] is not None:
        values["calibration_samples"] = options["calib_samples"]
    return Recipe.of(values)


def _plain(option: str, value: Any) -> Any:
    """A value as the recipe has it."""
    if option in ("max_flash", "max_ram"):
        return size_of(option, value)
    if option == "quant_repair" and value == ["none"]:
        return []
    if option == "ratio":
        return dict(_ratio(text) for text in value)
    return str(value) if isinstance(value, Path) else value


def _ratio(text: str) -> tuple[str, float]:
    """A pattern and its ratio."""
    from ..errors import UserError

    pattern, _, number = text.rpartition("=")
    try:
        if not pattern:
            raise ValueError
        return pattern, float(number)
    except ValueError:
        raise UserError(f"--ratio {text} is not a pattern and a fraction such as 'conv1*=0.3'") from None


def size_of(name: str, text: str) -> int:
    """Bytes from 65536, 64K, 64KB or 0.5M.

    Raises:
        UserError: It is no such size; the sentence names the option `name`.
    """
    from ..errors import UserError

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
        return {"threshold": float(text[1:])} if text.startswith("<") else {"sparsity": float(text)}
    except ValueError:
        raise UserError(
            f"--sparsify {text} is neither a fraction such as 0.5, a pattern such as 2:4 nor a magnitude such as '<0.01'"
        ) from None
