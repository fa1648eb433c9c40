"""What all tables of a recipe have in common."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UserError

T = TypeVar("T", bound="Table")


class Table(BaseModel):
    """A table of a recipe: immutable, unknown names refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_table(table: type[T], values: Mapping[str, Any], place: str = "") -> T:
    """A table from plain values.

    Args:
        table: Its class.
        values: By name.
        place: Where they stand in the recipe, for the message.

    Raises:
        UserError: A name is unknown or a value out of range.
    """
    try:
        return table.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"the recipe is wrong: {place}{sentence(error)}") from None


def read_toml(place: Path) -> dict[str, Any]:
    """The content of a recipe's file.

    Raises:
        UserError: The file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(place.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{place} is not text; a recipe is a TOML file") from None
    except OSError as error:
        raise UserError(f"{place} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None


def sentence(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, for people."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the whole"
    if first["type"] == "extra_forbidden":
        return f"{place} is unknown"
    message = first["msg"][0].lower() + first["msg"][1:]
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, (str, int, float, bool)) else ""
    return f"{place}: {message.removeprefix('value error, ')}{shown}"
