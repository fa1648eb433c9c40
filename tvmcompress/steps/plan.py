"""From a recipe to its steps, and what must hold before the first of them runs."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from ..errors import UserError
from ..recipe.recipe import Recipe
from ..recipe.table import Table, read_table
from ..training.backend import load_torch
from .base import Data, Step
from .registry import STEPS

_MISSING: dict[Data, str] = {
    "calibration": "calibration data; give samples of what the model will see (--calib data.npz)",
    "training": "samples to learn from; give them (--train-data train.npz)",
    "search": "samples that are not calibrated on; give some (--search-data or --eval)",
}


def planned(recipe: Recipe) -> list[Step[Any]]:
    """The steps of a recipe, in order.

    Raises:
        UserError: There is no such step, an option is out of range, or a step makes no sense where it stands.
    """
    steps: list[Step[Any]] = []
    entries = recipe.entries()
    for number, (name, options) in enumerate(entries):
        made = STEPS[name]
        table = options if isinstance(options, Table) else read_table(made.Options, options, f"steps.{number}.")
        following = entries[number + 1][0] if number + 1 < len(entries) else ""
        steps += made.planned(table, steps, following)
    quantized = None
    for step in steps:
        if quantized is not None and not step.takes_integers:
            raise UserError(
                f"'{step.name}' works on a float model, so it cannot stand behind '{quantized}'; put that last, "
                "or 'dequantize' between"
            )
        quantized = step.name if step.quantizes else None if step.leaves_integers else quantized
    return steps


def check_needs(steps: Sequence[Step[Any]], given: Container[Data]) -> None:
    """Refuse steps that lack something.

    Args:
        steps: In order.
        given: The data that there is.

    Raises:
        UserError: Data is missing; the sentence names all of it.
        MissingToolError: PyTorch is needed and not installed.
    """
    missing: dict[Data, str] = {}
    for step in steps:
        for data in _MISSING:
            if data in step.needs and data not in given:
                missing.setdefault(data, step.activity or step.name)
    if missing:
        raise UserError("; ".join(f"{activity} needs {_MISSING[data]}" for data, activity in missing.items()))
    if any("torch" in step.needs for step in steps):
        load_torch()
