"""What to do with a model, as data: written in TOML, by hand or by a search, and read back.

    [prune]
    ratio = 0.5
    scope = "global"

    [finetune]
    epochs = 10

    [quantize]
    observer = "percentile"

A table that is missing is a step that is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..errors import UserError
from ..files.whole_file import whole_file
from .finetune import FinetuneRecipe
from .quantize import LayerRecipe, QuantizeRecipe
from .table import Table

__all__ = [
    "BUDGETS",
    "FinetuneRecipe",
    "LayerRecipe",
    "PruneRecipe",
    "QuantizeRecipe",
    "Recipe",
    "SparsifyRecipe",
    "as_finetune_recipe",
    "as_prune_recipe",
    "as_quantize_recipe",
]


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
    normalization: Literal["mean", "max", "sum", "norm", "none"] | None = None
    threshold: float | None = None
    sensitivity: str | None = None
    round_to: int | None = Field(default=None, ge=1)
    min_channels: int = Field(default=1, ge=1)
    rounds: int | None = Field(default=None, ge=1)
    exclude: tuple[str, ...] = ()
    ratios: dict[str, float] = Field(default={})
    reconstruct: bool = True

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


BUDGETS = ("target_macs", "target_params", "max_ram", "max_flash")


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


class Recipe(Table):
    """Everything that is to be done with a model.

    Attributes:
        prune: None leaves the channels.
        sparsify: None leaves the weights.
        finetune: None trains nothing.
        quantize: None leaves the model float.
        calibration_samples: Samples of the calibration data to use at most.
    """

    prune: PruneRecipe | None = None
    sparsify: SparsifyRecipe | None = None
    finetune: FinetuneRecipe | None = None
    quantize: QuantizeRecipe | None = None
    calibration_samples: int | None = Field(default=None, ge=1)

    @staticmethod
    def of(values: Mapping[str, Any]) -> Recipe:
        """A recipe from plain values.

        Raises:
            UserError: A name is unknown or a value out of range.
        """
        try:
            return Recipe.model_validate(dict(values))
        except ValidationError as error:
            raise UserError(f"the recipe is wrong: {_sentence(error)}") from None

    @staticmethod
    def load(path: str | PathLike[str]) -> Recipe:
        """Read a recipe from a TOML file.

        Raises:
            UserError: The file cannot be read, is no TOML, or holds an unknown name or a value out of range.
        """
        place = Path(path)
        try:
            text = place.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{place} is not text; a recipe is a TOML file") from None
        except OSError as error:
            raise UserError(f"{place} cannot be read: {error.strerror or error}") from error
        try:
            return Recipe.of(_parse(text))
        except ValueError as error:
            raise UserError(f"{place}: {error}") from None

    def save(self, path: str | PathLike[str]) -> None:
        """Write the recipe as TOML.

        Raises:
            UserError: The file cannot be written.
        """
        with whole_file(path) as partial:
            partial.write_text(self.to_toml(), encoding="utf-8")

    def to_toml(self) -> str:
        """The recipe as TOML; what is None is left out."""
        return _toml(self.model_dump(mode="json", exclude_none=True))


def as_prune_recipe(value: PruneRecipe | float | Mapping[str, Any] | None) -> PruneRecipe | None:
    """A pruning recipe from what a caller gave: a ratio, a table, or None.

    Raises:
        UserError: An unknown name, or a value out of range.
    """
    if value is None or isinstance(value, PruneRecipe):
        return value
    if isinstance(value, Mapping):
        return Recipe.of({"prune": dict(value)}).prune
    ratio = _number(value)
    if ratio is None or not 0 < ratio < 1:
        raise UserError(f"the pruning ratio is {value}; it must be a fraction between 0 and 1, both excluded")
    return PruneRecipe(ratio=ratio)


def as_quantize_recipe(value: QuantizeRecipe | str | Mapping[str, Any] | None) -> QuantizeRecipe | None:
    """A quantization recipe from what a caller gave: a precision ("int8"), a table, or None.

    Raises:
        UserError: An unknown name, or a value out of range.
    """
    if value is None or isinstance(value, QuantizeRecipe):
        return value
    table = dict(value) if isinstance(value, Mapping) else {"precision": value}
    return Recipe.of({"quantize": table}).quantize


def as_finetune_recipe(value: FinetuneRecipe | int | Mapping[str, Any] | None) -> FinetuneRecipe | None:
    """A recipe of fine-tuning from what a caller gave: the number of epochs, a table, or None.

    Raises:
        UserError: An unknown name, or a value out of range.
    """
    if value is None or isinstance(value, FinetuneRecipe):
        return value
    table = dict(value) if isinstance(value, Mapping) else {"epochs": value}
    return Recipe.of({"finetune": table}).finetune


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _sentence(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, for people."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the whole"
    if first["type"] == "extra_forbidden":
        return f"{place} is unknown"
    message = first["msg"][0].lower() + first["msg"][1:]
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, (str, int, float, bool)) else ""
    return f"{place}: {message.removeprefix('value error, ')}{shown}"


def _parse(text: str) -> dict[str, Any]:
    """TOML to plain values."""
    return tomllib.loads(text)


def _toml(table: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML of nested tables of plain values."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    if path and lines:
        lines.insert(0, f"[{'.'.join(map(_key, path))}]")
    blocks = ["\n".join(lines)] if lines or path == () else []
    if path and not lines:
        blocks = [f"[{'.'.join(map(_key, path))}]"] if not any(isinstance(v, Mapping) for v in table.values()) else []
    for key, value in table.items():
        if isinstance(value, Mapping) and (value or path == ()):
            blocks.append(_toml(value, (*path, key)).rstrip("\n"))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _key(name: str) -> str:
    plain = name.replace("_", "a").replace("-", "a")
    return name if plain.isascii() and plain.isalnum() else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        escaped = "".join(_escape(character) for character in value)
        return f'"{escaped}"'
    return "[" + ", ".join(_value(entry) for entry in value) + "]"


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return f"\\u{ord(character):04x}" if ord(character) < 32 or ord(character) == 127 else character
