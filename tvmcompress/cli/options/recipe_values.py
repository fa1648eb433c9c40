"""The recipe that options stand for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from .recipe import RecipeOptions, Setting

if TYPE_CHECKING:
    from ...recipe.recipe import Recipe

SETS = {
    name: (setting.table, setting.field or name)
    for name, hint in get_type_hints(RecipeOptions, include_extras=True).items()
    for setting in getattr(hint, "__metadata__", ())
    if isinstance(setting, Setting)
}
"""The table and the field of the recipe that each option sets, by the option's name."""

_MAINS = {
    "prune": ("ratio", "threshold", "blocks", "heads"),
    "finetune": ("epochs",),
    "quantize": ("precision", "preset"),
    "qat": ("epochs",),
    "gate": ("max_drop", "min_accuracy"),
}
_NEEDS = {
    "prune": "--prune RATIO or a budget (--target-macs 0.5)",
    "finetune": "--finetune EPOCHS",
    "quantize": "--quantize int8",
}
"""Fields that ask for a step; those beside them say nothing alone. Budgets ask for pruning, too."""


_SPARSITIES = ("sparsity", "threshold", "pattern")
"""Fields of the table of sparsity of which one says how much."""


def recipe_of(asked: RecipeOptions) -> Recipe:
    """The recipe of a command, see `RecipeOptions.recipe`."""
    from ...errors import UserError
    from ...recipe.recipe import BUDGETS, Recipe, as_prune_recipe

    options = asdict(asked)
    base = Recipe() if asked.recipe_file is None else Recipe.load(asked.recipe_file)
    if asked.prune is not None:
        as_prune_recipe(asked.prune)
    values = base.model_dump(exclude_none=True, exclude_unset=True)
    amounts = ("ratio", "threshold", *BUDGETS)
    for table, mains in _MAINS.items():
        named = {name: field for name, (its, field) in SETS.items() if its == table and options[name] not in (None, [])}
        given = {field: _plain(name, options[name]) for name, field in named.items()}
        wanted = table in values or any(field in (*mains, *BUDGETS) for field in given)
        if table == "finetune" and (asked.qat is not None or "qat" in values):
            # How one trains, one trains under quantization, too.
            shared = {field: value for field, value in given.items() if field not in mains}
            values["qat"] = {**values.get("qat", {}), **shared}
            given = given if wanted else {}
        if given and not wanted:
            option = next(iter(named)).replace("_", "-")
            raise UserError(f"--{option} says nothing without {_NEEDS[table]}")
        if given:
            # A ratio on the command line takes the place of the file's budgets, and the other way round.
            replaced = amounts if any(name in given for name in amounts) else ()
            kept = {key: value for key, value in values.get(table, {}).items() if key not in replaced}
            values[table] = {**kept, **given}
    if asked.sparsify is not None:
        kept = {key: value for key, value in values.get("sparsify", {}).items() if key not in _SPARSITIES}
        values["sparsify"] = {**kept, **_sparsity(asked.sparsify)}
    if asked.calib_samples is not None:
        values["calibration_samples"] = asked.calib_samples
    return Recipe.of(values)


MORE = (
    "That was int8, with biases repaired from the samples, and nothing pruned. What else there is:\n"
    "  --eval test.npz                  accuracy before and after, on labelled samples\n"
    "  --prune 0.5, --max-ram 64K       channels that matter least leave\n"
    "  --max-drop 0.5 --eval test.npz   the precision of each layer is chosen so that no more accuracy is lost\n"
    "  --finetune 10 --train-data ...   what is left is trained\n"
    "  --tune 200                       faster kernels are looked for\n"
    "tvmcompress compress --help-all shows everything."
)
"""What a command that was told nothing says at its end."""


def with_default(plan: Recipe) -> Recipe:
    """What is done with a model and samples where nothing is said: int8, with biases corrected, which costs seconds."""
    from ...recipe.recipe import QuantizeRecipe

    return plan.model_copy(update={"quantize": QuantizeRecipe(precision="int8", repair=("bias",))})


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
    from ...errors import UserError

    pattern, _, number = text.rpartition("=")
    try:
        if not pattern:
            raise ValueError
        return pattern, float(number)
    except ValueError:
        raise UserError(f"--ratio {text} is not a pattern and a fraction such as 'conv1*=0.3'") from None


def size_of(name: str, text: str, least: int = 1) -> int:
    """Bytes from 65536, 64K, 64KB or 0.5M.

    Raises:
        UserError: It is no such size; or less than `least`; the sentence names the option `name`.
    """
    from ...errors import UserError

    number = text.strip().upper().removesuffix("B").removesuffix("I")
    factor = {"K": 1024, "M": 1024**2}.get(number[-1:], 1)
    try:
        size = float(number[:-1] if factor > 1 else number) * factor
        if not least <= size < 2**40:
            raise ValueError
    except ValueError:
        raise UserError(f"--{name.replace('_', '-')} {text} is not a size such as 65536, 64K or 1M") from None
    return int(size)


def _sparsity(text: str) -> dict[str, Any]:
    """The fields that --sparsify sets."""
    from ...errors import UserError

    if ":" in text:
        return {"pattern": text}
    try:
        return {"threshold": float(text[1:])} if text.startswith("<") else {"sparsity": float(text)}
    except ValueError:
        raise UserError(
            f"--sparsify {text} is neither a fraction such as 0.5, a pattern such as 2:4 nor a magnitude such as '<0.01'"
        ) from None
