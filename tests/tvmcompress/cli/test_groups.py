"""Commands that share a group of options show the same options, with the same help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from tvmcompress.cli.main import app
from tvmcompress.cli.options.command_recipe import CommandRecipeOptions
from tvmcompress.cli.options.data import PartOptions, ReadOptions
from tvmcompress.cli.options.groups import with_groups
from tvmcompress.cli.options.microcontroller import MicrocontrollerOptions
from tvmcompress.cli.options.model import ModelOptions
from tvmcompress.cli.options.recipe import RecipeOptions
from tvmcompress.cli.options.rpc import RpcOptions
from tvmcompress.cli.options.samples import SampleOptions
from tvmcompress.cli.options.targets import BuildOptions
from tvmcompress.cli.options.timing import TimingOptions

COMMANDS = {info.callback.__name__: info.callback for info in app.registered_commands if info.callback is not None}
USERS = {
    ModelOptions: {"compile", "inspect", "sensitivity", "compress", "evaluate", "benchmark", "tune", "search", "distill"},
    ReadOptions: {"sensitivity", "compress", "evaluate", "run", "benchmark", "search", "distill"},
    PartOptions: {"evaluate", "run"},
    SampleOptions: {"compress", "benchmark"},
    RecipeOptions: {"compress", "benchmark"},
    BuildOptions: {"compile", "compress", "benchmark"},
    TimingOptions: {"benchmark"},
    CommandRecipeOptions: {"distill", "sensitivity", "tune"},
    MicrocontrollerOptions: {"tune"},
    RpcOptions: {"compile", "compress", "benchmark", "run", "search", "tune"},
}
OTHER_DEFAULTS = {"sensitivity": {"limit"}, "compress": {"dry_run"}, "benchmark": {"dry_run"}}
"""The latter two are one option of `cli/dry_run.py`, whose recipe is of another kind."""


def shown(command: str) -> dict[str, tuple[Any, ...]]:
    """What the help of a command says of each parameter."""
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    return {
        p.name: (p.opts, p.secondary_opts, p.help, p.metavar, p.default, p.rich_help_panel)
        for p in parameters
        if hasattr(p, "help")
    }


@pytest.mark.parametrize("group", USERS, ids=lambda group: group.__name__)
def test_commands_that_share_a_group(group: type) -> None:
    names = [field.name for field in fields(group)]
    found = {command: {name: shown(command)[name] for name in names} for command in USERS[group]}
    first, *others = found.values()
    assert all(entry[2] for entry in first.values()), "an option without help"
    assert all(other == first for other in others)


@pytest.mark.parametrize("group", USERS, ids=lambda group: group.__name__)
def test_no_other_command_writes_the_options_again(group: type) -> None:
    """An option of a group stands in a command only through the group, or means something else there."""
    hints = get_type_hints(group, include_extras=True)
    for command in COMMANDS.keys() - USERS[group]:
        same = {name for name, entry in shown(command).items() if name in hints and entry[2] == _help(hints[name])}
        assert same <= OTHER_DEFAULTS.get(command, set()), command


def _help(hint: Any) -> str:
    return next(entry.help for entry in hint.__metadata__ if hasattr(entry, "help"))


def test_a_command_gets_the_value() -> None:
    @dataclass(frozen=True)
    class Pair:
        left: Annotated[int, typer.Option("--left", help="The left one.")] = 1
        right: Annotated[list[str] | None, typer.Option("--right", "-r")] = None

    got: list[Pair] = []

    def command(name: str, *, pair: Pair, last: bool = False) -> None:
        got.append(pair)
        assert (name, last) == ("n", True)

    command.__annotations__["pair"] = Pair
    alone = typer.Typer()
    alone.command()(with_groups(command))
    assert CliRunner().invoke(alone, ["n", "-r", "a", "--right", "b", "--left", "3", "--last"]).exit_code == 0
    assert CliRunner().invoke(alone, ["n", "--last"]).exit_code == 0
    assert got == [Pair(3, ["a", "b"]), Pair()]
