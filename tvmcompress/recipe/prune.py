"""The recipe's table of structured pruning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .table import Table

BUDGETS = ("target_macs", "target_params", "max_ram", "max_flash")


class PruneRecipe(Table):
    """Removal of blocks, heads and channels.

    How many channels go is a ratio, or follows from budgets; without either, and without blocks or heads, it is half.

    Attributes:
        ratio: Fraction of the channels to remove.
        target_macs: Fraction of the multiply-accumulates that may be left.
        target_params: Fraction of the parameters that may be left.
        max_ram: Bytes that the activations may take at once.
        max_flash: Bytes of code and constants on the microcontroller that is compressed for.
        blocks: Residual blocks or layers to remove before, at most.
        heads: Fraction of the attention heads to remove before.
        scope: Whether the ratio leaves every group ("local"), all groups together ("global"), or all that are built alike
            ("isomorphic").
        importance: Criterion by which channels are ranked; by default "output_energy" with calibration data and "l2"
            without.
        selection: How units leave: those that matter least are removed ("remove"), as many are merged into those that are alike
            ("fold"), or each group does what costs less behind the repair, on calibration samples held back ("best").
        normalization: What scores are divided by before those of different groups are compared.
        threshold: Remove the channels that score below this, in the place of a ratio.
        sensitivity: A file of `tvmcompress sensitivity`: groups are compared by what was measured.
        round_to: Channels kept are a multiple of this; by default what suits the kernels of the targets compressed for.
        min_channels: Channels that every group keeps at least.
        rounds: Steps in which a budget is reached, each ranking anew what is left; by default one where weights are repaired
            afterwards, and two where they are not, which is what pays.
        exclude: Patterns of layers whose outputs stay; what they read is the business of the layers before.
        ratios: Ratio by pattern, where it shall differ.
        reconstruct: Whether the remaining weights are repaired from the calibration data.
        solve_blocks: Whether the repair solves for the layers of a residual block, an attention, an MLP or two of a chain
            together (three to ten times as long, and closer to the original); see the option "blocks" of `Reconstruct`.
        distill: Whether they are then trained to do what the original does, on the calibration data alone; see the repair
            "distill".
    """

    ratio: float | None = Field(default=None, gt=0, lt=1)
    target_macs: float | None = Field(default=None, gt=0, lt=1)
    target_params: float | None = Field(default=None, gt=0, lt=1)
    max_ram: int | None = Field(default=None, gt=0)
    max_flash: int | None = Field(default=None, gt=0)
    blocks: int = Field(default=0, ge=0)
    heads: float | None = Field(default=None, gt=0, lt=1)
    scope: Literal["local", "global", "isomorphic"] = "local"
    importance: str | None = None
    selection: Literal["remove", "fold", "best"] = "remove"
    normalization: Literal["mean", "max", "sum", "norm", "none"] | None = None
    threshold: float | None = None
    sensitivity: str | None = None
    round_to: int | None = Field(default=None, ge=1)
    min_channels: int = Field(default=1, ge=1)
    rounds: int | None = Field(default=None, ge=1)
    exclude: tuple[str, ...] = ()
    ratios: dict[str, float] = Field(default={})
    reconstruct: bool = True
    solve_blocks: bool = False
    distill: bool = False

    @model_validator(mode="before")
    @classmethod
    def _half_by_default(cls, values: Any) -> Any:
        asked = ("ratio", *BUDGETS, "heads", "threshold")
        if isinstance(values, dict) and not values.get("blocks") and all(values.get(name) is None for name in asked):
            return {**values, "ratio": 0.5}
        return values

    @model_validator(mode="after")
    def _one_way(self) -> PruneRecipe:
        ways = [name for name in ("ratio", "threshold") if getattr(self, name) is not None]
        budgets = [name for name in BUDGETS if getattr(self, name) is not None]
        if ways and budgets:
            raise ValueError(f"give either {ways[0]} or {budgets[0]}, not both")
        if (self.rounds or 1) > 1 and not budgets:
            raise ValueError("rounds are those in which a budget is reached; give one, such as target_macs")
        if self.solve_blocks and not self.reconstruct:
            raise ValueError("solve_blocks is a way to repair, and reconstruct says not to")
        given = [name for name in ("scope", "ratios") if name in self.model_fields_set]
        if budgets and given and any(getattr(self, name) != type(self).model_fields[name].default for name in given):
            raise ValueError(f"{given[0]} says nothing beside {budgets[0]}, which spreads the removal itself")
        return self

    @property
    def budgets(self) -> dict[str, float]:
        """The budgets given, by name."""
        return {name: value for name in BUDGETS if (value := getattr(self, name)) is not None}

    @property
    def channels(self) -> bool:
        """Whether channels are removed at all."""
        return self.ratio is not None or self.threshold is not None or bool(self.budgets)

    def describe(self) -> str:
        """What is removed, in a few words."""
        parts = [f"{self.blocks} blocks"] if self.blocks else []
        if self.heads is not None:
            parts.append(f"{self.heads:g} of the heads")
        if self.ratio is not None:
            parts.append(f"{self.ratio:g} of the channels, {self.scope}")
        elif self.threshold is not None:
            parts.append(f"channels that score below {self.threshold:g}")
        parts += [f"{name.replace('_', ' ')} {value:g}" for name, value in self.budgets.items()]
        return "; ".join(parts)
