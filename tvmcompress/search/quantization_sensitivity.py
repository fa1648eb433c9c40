"""How much the quantization of each layer costs: of it alone, and of all others without it.

from tvmcompress.search.quantization_sensitivity import measure_quantization_sensitivity

found = measure_quantization_sensitivity(model, calibration, data, "int8", save="sensitivity.json")
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar

from ..data.dataset import Dataset
from ..errors import UserError
from ..evaluation.output_comparison import OutputComparison, OutputQuality, fingerprint
from ..model import Model
from ..recipe.quantize import Precision, QuantizeRecipe
from ..recipe.recipe import as_quantize_recipe
from ..sensitivity.record import AnalysisRecord
from ..steps.calibrate import find_ranges
from ..targets.record import Record
from .precision_trials import free_units, quantized


class LayerSensitivity(Record):
    """One layer.

    Attributes:
        name: The operator that begins it.
        op: That operator.
        macs: Its multiply-accumulates.
        params: Its weights and biases.
        alone: The model with this layer quantized and the others in float.
        without: The model with this layer in float and the others quantized.
    """

    name: str
    op: str
    macs: int
    params: int
    alone: OutputQuality
    without: OutputQuality


class QuantizationSensitivity(AnalysisRecord):
    """Of a whole model.

    Attributes:
        precision: What layers were quantized to.
        samples: How many samples were looked at.
        original: The float model on them.
        whole: The model with all layers quantized.
        layers: What was measured, in order of computation.
    """

    KIND: ClassVar[str] = "sensitivity to quantization; measure it with `tvmcompress sensitivity --quantize int8`"

    precision: Precision
    samples: int
    original: OutputQuality
    whole: OutputQuality
    layers: tuple[LayerSensitivity, ...] = ()

    def most_sensitive(self) -> list[LayerSensitivity]:
        """The layers by the error of the output when they alone are quantized, the largest first."""
        return sorted(self.layers, key=lambda layer: -layer.alone.error)


def measure_quantization_sensitivity(
    model: Model,
    calibration: Dataset,
    data: Dataset,
    options: QuantizeRecipe | str = "int8",
    *,
    save: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> QuantizationSensitivity:
    """Measure every layer that can be quantized.

    Args:
        model: A float model.
        calibration: Samples that ranges are found on.
        data: Other samples, that outputs are compared on; with labels the accuracy is measured, too.
        options: How layers are quantized: a precision, or the table of a recipe.
        save: A file that is written after every layer, and gone on with if it is there and fits.
        on_progress: Told layers done, out of how many, and the layer.

    Raises:
        UserError: Nothing can be quantized, or the data does not fit.
    """
    recipe = as_quantize_recipe(options)
    assert recipe is not None
    if recipe.precision == "float32":
        raise UserError("float32 is what layers compute in already; ask for int8 or another precision")
    units = free_units(model, recipe)
    compare = OutputComparison(model, data)
    # Any layer may stay in float: the ranges must serve that as they serve a search.
    ranges = find_ranges(model, calibration, recipe.model_copy(update={"max_drop": 0.0}))
    everywhere: dict[str, Precision] = dict.fromkeys((unit.name for unit in units), recipe.precision)
    nowhere: dict[str, Precision] = dict.fromkeys(everywhere, "float32")

    def quality(precisions: dict[str, Precision]) -> OutputQuality:
        return compare(quantized(model, ranges, recipe, units, precisions))

    mark = fingerprint(model, calibration, data, options=recipe.model_dump_json())
    earlier = QuantizationSensitivity.earlier(save, mark)
    known = {} if earlier is None else {layer.name: layer for layer in earlier.layers}
    found = QuantizationSensitivity(
        fingerprint=mark,
        precision=recipe.precision,
        samples=len(data),
        original=compare.original,
        whole=quality(everywhere) if earlier is None else earlier.whole,
    )
    for number, unit in enumerate(units, start=1):
        layer = known.get(unit.name)
        if layer is None:
            layer = LayerSensitivity(
                name=unit.name,
                op=unit.op,
                macs=unit.macs,
                params=unit.params,
                alone=quality({**nowhere, unit.name: recipe.precision}),
                without=quality({**everywhere, unit.name: "float32"}),
            )
        found = found.model_copy(update={"layers": (*found.layers, layer)})
        if save is not None and unit.name not in known:
            found.save(save)
        if on_progress is not None:
            on_progress(number, len(units), unit.name)
    return found
