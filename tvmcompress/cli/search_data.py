"""Which samples precisions are chosen on, and which are then evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..model import InputSpec
    from ..recipe.recipe import Recipe

OPTIMISTIC = (
    "chosen on the samples that are evaluated here, so the accuracy is optimistic; "
    "choose on others (--search-data FILE or --search-split 0.5)"
)


def search_and_evaluation(
    plan: Recipe,
    inputs: Sequence[InputSpec],
    path: Path | None,
    fraction: float | None,
    evaluation: Dataset | None,
    read: dict[str, Any],
) -> tuple[Dataset | None, Dataset | None, bool]:
    """The samples to choose precisions on, those to evaluate, and whether they are the same.

    Args:
        plan: What is to be done.
        inputs: Of the model.
        path: --search-data.
        fraction: --search-split.
        evaluation: --eval.
        read: How files are read.

    Raises:
        UserError: An option says nothing, or there are no samples to choose on.
    """
    from ..data.dataset import load_data
    from ..data.splits import split
    from ..errors import UserError

    searches = plan.quantize is not None and plan.quantize.searches
    for value, option in ((path, "--search-data"), (fraction, "--search-split")):
        if value is not None and not searches:
            raise UserError(f"{option} says nothing without a limit for choosing precisions (--max-drop 0.5)")
    if not searches:
        return None, evaluation, False
    if path is not None:
        if fraction is not None:
            raise UserError("give either --search-data or --search-split, not both")
        return load_data(path, inputs, **read), evaluation, False
    if evaluation is None:
        raise UserError(
            "precisions are chosen on samples that are not calibrated on; give some with --search-data or --eval"
        )
    if fraction is not None:
        return *split(evaluation, fraction), False
    return evaluation, evaluation, True
