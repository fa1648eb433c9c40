"""Whether a result passes the gate of its recipe."""

from __future__ import annotations

from ..evaluation.accuracy import Evaluation
from ..recipe.gate import GateRecipe
from .units import percent

_ROUNDING = 1e-9


def gate_failure(gate: GateRecipe, name: str, evaluation: Evaluation | None, original: Evaluation | None) -> str | None:
    """Why a model does not pass; None where it does.

    Args:
        gate: What it must keep.
        name: Of the model, for the sentence.
        evaluation: Of the model.
        original: Of the model that it was made from, on the same samples.
    """
    if evaluation is None or original is None:
        return f"{name} was not evaluated, so whether it passes the gate is not known; give data with --eval"
    accuracy, before = evaluation.accuracy, original.accuracy
    if gate.min_accuracy is not None:
        if accuracy is None:
            return f"the accuracy of {name} is not known, since the samples have no labels"
        if 100 * accuracy < gate.min_accuracy - _ROUNDING:
            return f"{name} has {percent(accuracy)} right, and the gate wants {gate.min_accuracy:g} %"
    if gate.max_drop is None:
        return None
    if accuracy is not None and before is not None:
        lost = 100 * (before - accuracy)
        what = f"{name} loses {lost:.2f} points of accuracy ({percent(before)} to {percent(accuracy)})"
    elif evaluation.agreement is not None:
        lost = 100 * (1 - evaluation.agreement)
        what = f"{name} gives {lost:.2f} % of the answers otherwise than the original"
    else:
        return f"{name} gives no answers that could be counted, so whether it passes the gate is not known"
    return None if lost <= gate.max_drop + _ROUNDING else f"{what}, and the gate allows {gate.max_drop:g}"
