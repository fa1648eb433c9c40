"""The recipe of a command other than compress: its options as a table of TOML, which --dry-run writes and --recipe takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..dry_run import DryRunOption

_APART = ("command_recipe", "dry_run", "json", "help_all")
"""Options that say how a command is called, not what it does."""


def _take(ctx: typer.Context, place: Path | None) -> Path | None:
    """Let what a recipe says stand in the place of the defaults."""
    if place is None or ctx.resilient_parsing:
        return place
    from ...errors import UserError

    command = str(ctx.command.name)
    names = {key: name for name, key in keys(ctx).items()}
    table = _read(place, command)
    for key, value in table.items():
        if key not in names:
            raise UserError(f"{place}: {command}.{key} is unknown; a recipe of {command} has {', '.join(sorted(names))}")
        if isinstance(value, dict):
            raise UserError(f"{place}: {command}.{key} is a table; give a value as the option --{key} takes it")
    repeatable = {param.name for param in ctx.command.params if getattr(param, "multiple", False)}
    given = {names[key]: _as_given(value) for key, value in table.items()}
    ctx.default_map = {
        name: [value] if name in repeatable and not isinstance(value, list) else value for name, value in given.items()
    }
    return place


@dataclass(frozen=True)
class CommandRecipeOptions:
    """What is done, as a file: read in the place of options, or written in the place of doing it."""

    command_recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", is_eager=True, callback=_take, help="A TOML file as --dry-run writes it; options replace its entries."
        ),
    ] = None
    dry_run: DryRunOption = False


def keys(ctx: typer.Context) -> dict[str, str]:
    """What recipes call the parameters of a command, by their names in the command: as their long options, with _ for -."""
    found = {}
    for param in ctx.command.params:
        options = [option for option in param.opts if option.startswith("--")]
        if param.name not in _APART and param.name != "help":
            found[str(param.name)] = max(options, key=len)[2:].replace("-", "_") if options else str(param.name)
    return found


def command_recipe(ctx: typer.Context, **settled: Any) -> dict[str, dict[str, Any]]:
    """The recipe of the command that runs: the table of its name, with all that its options say, defaults among them.

    Args:
        ctx: Of the command.
        settled: Values, by their keys, for what the command settles itself where nothing is given.
    """
    named = keys(ctx)
    values = {key: _plain(ctx.params[name]) for name, key in named.items()}
    values = {key: value for key, value in values.items() if value is not None and value != []}
    return {str(ctx.command.name): {**settled, **values}}


def _read(place: Path, command: str) -> Mapping[str, Any]:
    from ...errors import UserError
    from ...recipe.table import read_toml

    content = read_toml(place)
    table = content.get(command)
    if set(content) != {command} or not isinstance(table, dict):
        there = ", ".join(f"[{name}]" for name in content) or "nothing"
        raise UserError(f"{place} holds {there}; a recipe of {command} is one table, [{command}]")
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _as_given(value: Any) -> Any:
    """A value as the parser takes it: numbers too as text, so that 1.5 trials are refused as they are on the command line."""
    if isinstance(value, list):
        return [_as_given(part) for part in value]
    return value if isinstance(value, bool) else str(value)
