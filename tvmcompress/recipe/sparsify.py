"""The recipe's table of sparse weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .table import Table


class SparsifyRecipe(Table):
    """Zeroing of single weights; shapes stay.

    Attributes:
        sparsity: Fraction of the weights to zero.
        threshold: Zero the weights of smaller magnitude, in the place of a fraction.
        pattern: "2:4" keeps the two largest of every four successive weights, in the place of a fraction.
        method: How weights are chosen.
        scope: Whether the fraction leaves every weight or all together.
        exclude: Patterns of layers to leave alone.
        reconstruct: Whether the weights that stay are repaired from the calibration data.
    """

    sparsity: float = Field(default=0.5, gt=0, lt=1)
    threshold: float | None = Field(default=None, gt=0)
    pattern: str | None = Field(default=None, pattern=r"^[1-9][0-9]*:[1-9][0-9]*$")
    method: Literal["magnitude", "random"] = "magnitude"
    scope: Literal["local", "global"] = "local"
    exclude: tuple[str, ...] = ()
    reconstruct: bool = True

    @model_validator(mode="after")
    def _one_way(self) -> SparsifyRecipe:
        if self.threshold is not None and (self.pattern is not None or "sparsity" in self.model_fields_set):
            raise ValueError("give either a threshold, a sparsity or a pattern")
        if self.threshold is not None and self.method != "magnitude":
            raise ValueError("a threshold is one of magnitude")
        return self

    def describe(self) -> str:
        """What becomes zero, in a few words."""
        if self.threshold is not None:
            return f"weights below {self.threshold:g}"
        return f"{self.pattern or f'{self.sparsity:g} of the weights'}, by {self.method}"

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """The pattern as numbers: (weights kept, of so many)."""
        if self.pattern is None:
            return None
        kept, _, of = self.pattern.partition(":")
        return int(kept), int(of)
