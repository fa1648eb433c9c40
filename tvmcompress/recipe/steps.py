"""The list `[[steps]]` of a recipe: its entries, and the tables of steps that have none of their own beside it."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from .finetune import FinetuneRecipe
from .iterative import IterativeRecipe
from .prune import PruneRecipe
from .quantize import LayerRecipe, QuantizeRecipe
from .sparsify import SparsifyRecipe
from .table import Table, sentence


class RepairRecipe(Table):
    """Repair of a float model from calibration data.

    Attributes:
        method: "reconstruct" solves for the weights that pruning has left by least squares, against the original; "distill"
            trains them towards it without labels, on calibration samples (PyTorch; minutes); "equalize" and "smooth" prepare
            for quantization, see `QuantizeRecipe.repair`.
        options: Those of the method's pass, of "reconstruct" `ridge` and `blocks`; of "distill" those of `FinetuneRecipe`,
            `epochs` and `learning_rate` first.
    """

    method: str = "reconstruct"
    options: dict[str, Any] = Field(default={})


class PassRecipe(Table):
    """One pass over the float model.

    Attributes:
        name: One of `tvmcompress.passes`, or one that another package names in the entry points `tvmcompress.passes`.
        options: What it is made with, by name.
    """

    name: str
    options: dict[str, Any] = Field(default={})


class DequantizeRecipe(Table):
    """Back to float, with the weights that the integers stand for: behind it a quantized network can be pruned."""


class CalibrateRecipe(Table):
    """Ranges of activations, which a step "quantize" behind it then need not find.

    Attributes:
        observer: How the range of an activation is found.
        observer_options: Its options.
        layers: Other observers, by patterns of layers.
    """

    observer: str = "mse"
    observer_options: dict[str, float] = Field(default={})
    layers: dict[str, LayerRecipe] = Field(default={})

    @model_validator(mode="after")
    def _observers_alone(self) -> CalibrateRecipe:
        for layer in self.layers.values():
            other = sorted(layer.model_fields_set - {"observer", "observer_options"})
            if other:
                raise ValueError(f"{other[0]} says nothing of how ranges are found; give it to the step quantize")
        return self

    def for_any_precision(self) -> QuantizeRecipe:
        """The table of quantization that asks for the ranges that any precision of any layer needs."""
        return QuantizeRecipe(max_drop=0.0, **dict(self))


TABLES: dict[str, type[Table]] = {
    "prune": PruneRecipe,
    "prune_iteratively": IterativeRecipe,
    "sparsify": SparsifyRecipe,
    "finetune": FinetuneRecipe,
    "qat": FinetuneRecipe,
    "pass": PassRecipe,
    "repair": RepairRecipe,
    "calibrate": CalibrateRecipe,
    "choose_precisions": QuantizeRecipe,
    "quantize": QuantizeRecipe,
    "dequantize": DequantizeRecipe,
}
"""The options of our own steps, by name."""


class StepEntry(Table):
    """One entry of `[[steps]]`; what stands beside its name are the options of that step.

    Attributes:
        step: Its name, one of ours or of another package's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    step: str

    @model_validator(mode="after")
    def _options_fit(self) -> StepEntry:
        try:
            self.options  # noqa: B018  (read for its check)
        except ValidationError as error:
            raise ValueError(f"{self.step}.{sentence(error)}") from None
        return self

    @staticmethod
    def of(step: str, options: Table) -> StepEntry:
        """The entry of a step with these options."""
        return StepEntry(step=step, **options.model_dump(mode="json", exclude_unset=True, exclude_none=True))

    @property
    def options(self) -> Table | dict[str, Any]:
        """The table of options; plain values for a step of another package."""
        values = dict(self.model_extra or {})
        return TABLES[self.step].model_validate(values) if self.step in TABLES else values

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The options of each step of ours, so that editors know them; any for those of other packages."""
        ours = []
        for name, table in TABLES.items():
            # What a table needs and refuses stands beside the name of its step, not inside an object of its own.
            plain = dict(handler.resolve_ref_schema(handler(table.__pydantic_core_schema__)))
            plain["title"] = name
            plain["properties"] = {"step": {"const": name}, **plain.get("properties", {})}
            plain["required"] = ["step", *plain.get("required", [])]
            ours.append(plain)
        other = {
            "title": "a step of another package",
            "type": "object",
            "properties": {"step": {"type": "string", "not": {"enum": list(TABLES)}}},
            "required": ["step"],
        }
        return {"anyOf": [*ours, other], "description": "One entry of [[steps]]: a step and its options."}
