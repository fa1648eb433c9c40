"""What to do with a model, as data: written in TOML, by hand or by a search, and read back.

    [prune]
    ratio = 0.5
    scope = "global"

    [finetune]
    epochs = 10

    [quantize]
    observer = "percentile"

A table that is missing is a step that is left out; those there run in the order prune, sparsify, finetune, quantize, qat. A
list of steps in the place of the tables has any order, any step as often as wanted, and steps of other packages:

    [[steps]]
    step = "prune"
    ratio = 0.3

    [[steps]]
    step = "finetune"
    epochs = 2

    [[steps]]
    step = "prune"
    ratio = 0.3

    [[steps]]
    step = "quantize"
    layers = { "features.0*" = { precision = "int16x8" } }

The step "pass" applies any pass of `tvmcompress.passes`, or of another package, by its name:

    [[steps]]
    step = "pass"
    name = "EqualizeLayers"
    options = { iterations = 20 }

An entry means the same as the table of its name, and takes the same options: "prune" and "sparsify" repair what is left if
there is calibration data, "quantize" first finds ranges, and chooses precisions where there is a limit. What stands beside it
as an entry of its own is not done twice: "repair" behind pruning, "calibrate" and "choose_precisions" before "quantize" (their
options are in `recipe.steps`). Ratios are of what the steps before have left, budgets of the original. Quantization comes
last, with "qat" behind it; or "dequantize", which leaves the float network whose weights are the rounded ones, for what works
on float networks alone, and "quantize" once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ..errors import UserError
from ..files.whole_file import whole_file
from ..passes.repair.repairs import REPAIRS
from .finetune import FinetuneRecipe
from .gate import GateRecipe
from .iterative import IterativeRecipe
from .prune import BUDGETS, PruneRecipe
from .quantize import LayerRecipe, QuantizeRecipe
from .sparsify import SparsifyRecipe
from .steps import RepairRecipe, StepEntry
from .table import Table, read_table, read_toml

__all__ = [
    "BUDGETS",
    "FinetuneRecipe",
    "GateRecipe",
    "LayerRecipe",
    "PruneRecipe",
    "QuantizeRecipe",
    "Recipe",
    "SparsifyRecipe",
    "as_finetune_recipe",
    "as_prune_recipe",
    "as_quantize_recipe",
]

_TABLES = ("prune", "sparsify", "finetune", "quantize", "qat")
"""The tables that stand for steps, in the order in which those run."""


class Recipe(Table):
    """Everything that is to be done with a model.

    Attributes:
        prune: None leaves the channels.
        sparsify: None leaves the weights.
        finetune: None trains nothing.
        quantize: None leaves the model float.
        qat: Training under quantization, with the options of fine-tuning; None trains no quantized model.
        calibration_samples: Samples of the calibration data to use at most.
        dense_rounding: Of a quantized TFLite file that is read, see `tvmcompress.load`.
        steps: A list of steps in the place of those four.
        gate: How good the result must be; None takes it as it is.
    """

    prune: PruneRecipe | None = None
    sparsify: SparsifyRecipe | None = None
    finetune: FinetuneRecipe | None = None
    quantize: QuantizeRecipe | None = None
    qat: FinetuneRecipe | None = None
    calibration_samples: int | None = Field(default=None, ge=1)
    dense_rounding: Literal["single", "double"] | None = None
    steps: tuple[StepEntry, ...] = ()
    gate: GateRecipe | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Recipe:
        tables = [name for name in _TABLES if getattr(self, name) is not None]
        if self.steps and tables:
            raise ValueError(f"the list [[steps]] takes the place of the table [{tables[0]}]; make that an entry of the list")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Versions that do not know these read recipes and reports that have none.
        return {
            name: value for name, value in dump(self).items() if name not in ("steps", "dense_rounding", "gate", "qat") or value
        }

    def entries(self) -> tuple[tuple[str, Table | dict[str, Any]], ...]:
        """The steps in order: names, and options as tables; as plain values for steps of other packages."""
        if self.steps:
            return tuple((entry.step, entry.options) for entry in self.steps)
        return tuple((name, table) for name in _TABLES if (table := getattr(self, name)) is not None)

    def has(self, step: str) -> bool:
        """Whether there is such a step."""
        return any(name == step for name, _ in self.entries())

    @property
    def keeps_state(self) -> bool:
        """Whether a step trains, or a repair learns for so long, that its state can be kept on the way."""
        return any(
            name in ("finetune", "qat")
            or (isinstance(options, PruneRecipe) and options.distill)
            or (isinstance(options, RepairRecipe) and options.method == "distill")
            or (isinstance(options, IterativeRecipe) and options.epochs > 0)
            or (isinstance(options, QuantizeRecipe) and any(REPAIRS[repair].resumes for repair in options.repairs))
            for name, options in self.entries()
        )

    @property
    def searches(self) -> bool:
        """Whether precisions are to be chosen under a limit."""
        return any(isinstance(options, QuantizeRecipe) and options.searches for _, options in self.entries())

    def changed(self, step: str, change: Callable[[Any], Table]) -> Recipe:
        """The recipe with other options in all steps of a name."""
        steps = tuple(StepEntry.of(step, change(e.options)) if e.step == step else e for e in self.steps)
        tables = {step: change(getattr(self, step))} if not self.steps and self.has(step) else {}
        return self.model_copy(update={"steps": steps, **tables})

    def only(self, wanted: Callable[[str], bool]) -> Recipe:
        """The recipe with the steps alone whose names are wanted."""
        tables = {name: None for name in _TABLES if not wanted(name)}
        return self.model_copy(update={"steps": tuple(entry for entry in self.steps if wanted(entry.step)), **tables})

    @staticmethod
    def of(values: Mapping[str, Any]) -> Recipe:
        """A recipe from plain values.

        Raises:
            UserError: A name is unknown or a value out of range.
        """
        return read_table(Recipe, values)

    @staticmethod
    def load(path: str | PathLike[str]) -> Recipe:
        """Read a recipe from a TOML file.

        Raises:
            UserError: The file cannot be read, is no TOML, or holds an unknown name or a value out of range.
        """
        place = Path(path)
        content = read_toml(place)
        try:
            return Recipe.of(content)
        except ValueError as error:
            raise UserError(f"{place}: {error}") from None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the recipe as TOML.

        Raises:
            UserError: The file cannot be written.
        """
        with whole_file(path) as partial:
            partial.write_text(self.to_toml(), encoding="utf-8")

    def to_toml(self) -> str:
        """The recipe as TOML; what is None or an empty table is left out."""
        return tomli_w.dumps(_without_empty(self.model_dump(mode="json", exclude_none=True)))


def _without_empty(table: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables without those that are empty."""
    return {name: _without_empty(value) if isinstance(value, dict) else value for name, value in table.items() if value != {}}


def as_prune_recipe(value: PruneRecipe | float | Mapping[str, Any] | None) -> PruneRecipe | None:
    """A pruning recipe from what a caller gave: a ratio, a table, or None.

    Raises:
        UserError: An unknown name, or a value out of range.
    """
    if value is not None and not isinstance(value, (PruneRecipe, Mapping)):
        ratio = _number(value)
        if ratio is None or not 0 < ratio < 1:
            raise UserError(f"the pruning ratio is {value}; it must be a fraction between 0 and 1, both excluded")
        return PruneRecipe(ratio=ratio)
    return _table("prune", "ratio", value)


def as_quantize_recipe(value: QuantizeRecipe | str | Mapping[str, Any] | None) -> QuantizeRecipe | None:
    """A quantization recipe from what a caller gave: a precision ("int8"), a table, or None.

    Raises:
        UserError: An unknown name, or a value out of range.
    """
    return _table("quantize", "precision", value)


def as_finetune_recipe(value: FinetuneRecipe | int | Mapping[str, Any] | None) -> FinetuneRecipe | None:
    """A recipe of fine-tuning from what a caller gave: the number of epochs, a table, or None.

    Raises:
        UserError: An unknown name, or a value out of range.
    """
    return _table("finetune", "epochs", value)


def _table(name: str, main: str, value: Any) -> Any:
    """The table of a name from what a caller gave: a value of its field `main`, or more of them."""
    if value is None or isinstance(value, Table):
        return value
    return getattr(Recipe.of({name: dict(value) if isinstance(value, Mapping) else {main: value}}), name)


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
