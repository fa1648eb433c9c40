"""Repair of a quantized model from calibration data alone, as a recipe asks for it.

Some repairs change the float model so that it quantizes better, its results unchanged; the others choose integers anew in the
quantized one. Each kind is applied in the order of the recipe.
"""

from __future__ import annotations

from collections.abc import Callable

from ..data.dataset import Dataset
from ..model import Model
from ..passes.repair.repairs import REPAIRS, make_repair
from ..recipe.quantize import QuantizeRecipe
from .progress import Road
from .pruning import repair_samples

_Tell = Callable[[int, int, str], None]


def repair_float(road: Road, model: Model, data: Dataset | None, options: QuantizeRecipe) -> Model:
    """The float model after the repairs that come before quantization; it computes the same."""
    names = [name for name in options.repairs if REPAIRS[name].of_float]
    inputs = data.first(repair_samples(model)).inputs() if names and data is not None else None
    for name in names:
        with road.step(name) as say:
            made = make_repair(name, None, inputs, options.repair_options.get(name), _teller(road, name))
            model = model.apply(made, note=REPAIRS[name].note)
            say(REPAIRS[name].note)
    return model


def repair_integers(road: Road, qdq: Model, reference: Model, data: Dataset | None, options: QuantizeRecipe) -> Model:
    """A model in QDQ form after the repairs that choose integers anew.

    Args:
        road: Keeps the time.
        qdq: The quantized model.
        reference: The float model that it was made from.
        data: Calibration samples; without them nothing is repaired.
        options: What is wanted.
    """
    names = [name for name in options.repairs if not REPAIRS[name].of_float]
    if data is None or not names:
        return qdq
    samples = data.first(repair_samples(reference))
    inputs = samples.inputs()
    for name in names:
        with road.step(name) as say:
            given = options.repair_options.get(name)
            made = make_repair(name, reference.module, inputs, given, _teller(road, name))
            qdq = qdq.apply(made, note=f"{REPAIRS[name].note} on {len(samples)} samples")
            say(f"{REPAIRS[name].note} on {len(samples)} samples")
    return qdq


def _teller(road: Road, name: str) -> Callable[[int, int, str], None]:
    return lambda done, total, _: road.tell(name, done, total)
