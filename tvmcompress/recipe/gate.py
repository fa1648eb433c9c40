"""The recipe's gate: how good the result must be, or the command fails."""

from __future__ import annotations

from pydantic import Field, model_validator

from .table import Table


class GateRecipe(Table):
    """What the result must keep on the data that it is evaluated on; nothing is changed to get there.

    Attributes:
        max_drop: Points of accuracy that may be lost; without labels, percent of answers that may change.
        min_accuracy: Percent that must be right.
    """

    max_drop: float | None = Field(default=None, ge=0, lt=100)
    min_accuracy: float | None = Field(default=None, gt=0, le=100)

    @model_validator(mode="after")
    def _says_something(self) -> GateRecipe:
        if self.max_drop is None and self.min_accuracy is None:
            raise ValueError("it needs max_drop or min_accuracy")
        return self
