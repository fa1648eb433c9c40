"""Trying precisions: a float model quantized with one for each layer, and what its outputs are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ..data.dataset import Dataset
from ..errors import UserError
from ..model import Model
from ..passes import Range
from ..passes.quantization.units import QuantizationUnit, quantization_units
from ..recipe.quantize import LayerRecipe, Precision, QuantizeRecipe
from ..steps.quantize import quantize_model, stays_float


def free_units(model: Model, options: QuantizeRecipe) -> list[QuantizationUnit]:
    """The layers of a float model whose precision the recipe leaves open: all but those it names.

    Raises:
        UserError: There is none.
    """
    named = [*options.exclude, *(pattern for pattern, layer in options.layers.items() if layer.precision is not None)]
    units = quantization_units(model.module)
    found = [unit for unit in units if not any(fnmatchcase(unit.name, pattern) for pattern in named)]
    if not found:
        raise UserError("the model has no layer whose precision can be chosen" + (", beside those named" if units else ""))
    return found


def with_precisions(
    options: QuantizeRecipe, units: Sequence[QuantizationUnit], precisions: Mapping[str, Precision]
) -> QuantizeRecipe:
    """A recipe that says the precision of layers, where it is another than everywhere.

    Args:
        options: What else is said of them stays.
        units: The layers.
        precisions: By name of the layer; the others stay as they are.
    """
    layers: dict[str, LayerRecipe] = {}
    for unit in units:
        precision = precisions.get(unit.name, options.precision)
        if precision == options.precision:
            continue
        known = next((layer for pattern, layer in options.layers.items() if fnmatchcase(unit.name, pattern)), None)
        values = {} if known is None else _values(known)
        layers.update(dict.fromkeys(unit.patterns, LayerRecipe(precision=precision, **values)))
    return options.model_copy(update={"layers": {**layers, **options.layers}})


def quantized(
    model: Model,
    ranges: Mapping[str, Range],
    options: QuantizeRecipe,
    units: Sequence[QuantizationUnit],
    precisions: Mapping[str, Precision],
    calibration: Dataset | None = None,
) -> Model:
    """The model with these precisions, as targets run it; the model itself where all layers stay in float.

    Args:
        model: Float.
        ranges: Of its tensors.
        options: What else is wanted.
        units: The layers that `precisions` names.
        precisions: By name of the layer.
        calibration: Samples for repairs of integers, which are left out without them.
    """
    recipe = with_precisions(options, units, precisions)
    if stays_float(model, recipe):
        return model
    return quantize_model(model, ranges, recipe, calibration)[0]


def _values(layer: LayerRecipe) -> dict[str, Any]:
    return {name: value for name, value in layer.model_dump(exclude_none=True).items() if name != "precision"}
