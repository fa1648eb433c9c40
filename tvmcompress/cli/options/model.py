"""The options that say how a model's file is read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..completion import models

if TYPE_CHECKING:
    from ...model import Model
    from ...recipe.recipe import Recipe

_model = partial(typer.Option, rich_help_panel="Model")

ModelArgument = Annotated[
    Path,
    typer.Argument(
        help="An .onnx or .tflite file, float or quantized; a .pt2 file of torch.export; a .tvmc file of ours.",
        show_default=False,
        autocompletion=models,
    ),
]


class DenseRounding(StrEnum):
    """How fully connected layers of a quantized TFLite file round."""

    single = "single"
    double = "double"


@dataclass(frozen=True)
class ModelOptions:
    """What a model's file leaves open."""

    shape: Annotated[
        list[str] | None,
        _model(metavar="NAME:DIMS", help="Shape of an input that the file leaves open: image:1,3,224,224."),
    ] = None
    batch: Annotated[int, _model(min=1, help="Size of an open leading dimension.")] = 1
    dense_rounding: Annotated[
        DenseRounding | None,
        _model(
            help="Fully connected layers of quantized TFLite files round once, as LiteRT (single), or twice, as "
            "TFLite Micro and CMSIS-NN (double).",
            show_default="single",
        ),
    ] = None

    def recorded(self, plan: Recipe) -> Recipe:
        """The recipe with what these options say about the file."""
        if self.dense_rounding is None:
            return plan
        return plan.model_copy(update={"dense_rounding": self.dense_rounding.value})

    def load(self, path: Path, plan: Recipe | None = None) -> Model:
        """The model of a file.

        Args:
            path: The file.
            plan: A recipe that `recorded` has given.

        Raises:
            UserError: It cannot be read, or a shape is of no form.
        """
        from ...errors import UserError
        from ...importing import load
        from ...recipe.recipe import Recipe

        rounding = self.recorded(plan or Recipe()).dense_rounding
        shapes = _shapes(self.shape)
        model = load(path, shapes=shapes, batch=self.batch, dense_rounding=rounding)
        found = {spec.name: spec.shape for spec in model.inputs}
        for name, shape in shapes.items():
            if found.get(name, shape) != shape:
                raise UserError(f"--shape {name} says nothing: {path} gives it the shape {'x'.join(map(str, found[name]))}")
        if self.batch > 1 and all(not shape or shape[0] != self.batch for shape in found.values()):
            raise UserError(f"--batch {self.batch} says nothing: {path} leaves no leading dimension open")
        return model


def _shapes(entries: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Shapes by input name from `name:1,3,224,224`."""
    from ...errors import UserError

    shapes = {}
    for entry in entries or []:
        name, colon, dims = entry.rpartition(":")
        parts = dims.replace("x", ",").split(",")
        if not colon or not name or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            raise UserError(f"--shape {entry} is not of the form NAME:1,3,224,224")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes
