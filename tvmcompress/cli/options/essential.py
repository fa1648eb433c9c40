"""Help in two lengths: `--help` shows what most people need, `--help-all` everything."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperOption

ESSENTIAL = {
    "compress": (
        *("recipe_file", "calib", "eval_data", "prune", "max_ram", "max_flash", "quantize", "max_drop", "finetune"),
        *("target", "gate_drop", "output"),
    ),
    "compile": ("target", "tune", "threads", "emit", "prefix", "output", "json"),
    "benchmark": (
        *("recipe_file", "calib", "eval_data", "prune", "quantize", "variant", "target", "runs", "compare"),
        *("skip_missing", "save", "json"),
    ),
    "search": (
        *("target", "output", "calib", "eval_data", "train_data", "minimize", "max_drop", "max_ram", "max_flash", "minutes"),
        *("dry_run", "json"),
    ),
    "distill": ("teacher", "train_data", "eval_data", "width", "epochs", "output", "json"),
    "tune": ("target", "trials", "minutes", "log", "json"),
    "sensitivity": ("save", "ratios", "quantize", "calib", "limit", "json"),
    "run": ("target", "layers", "port", "limit", "save", "json"),
    "evaluate": ("against", "layers", "limit", "skip", "json"),
}
"""The options that the short help of a command shows, by their names in the command."""

_ALL = "tvmcompress.help-all"


class ShortHelp(TyperCommand):
    """A command whose `--help` leaves out the options that few need, and says how many these are."""

    essential: ClassVar[tuple[str, ...]] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, short unless all was asked for."""
        others = [] if ctx.meta.get(_ALL) else self.others()
        epilog = self.epilog
        for param in others:
            param.hidden = True
        if others:
            self.epilog = f"{len(others)} more options: {ctx.command_path} --help-all"
        try:
            super().format_help(ctx, formatter)
        finally:
            self.epilog = epilog
            for param in others:
                param.hidden = False

    def others(self) -> list[Any]:
        """The options that are left out."""
        shown = (*self.essential, "help_all")
        return [p for p in self.params if isinstance(p, TyperOption) and not p.hidden and p.name not in shown]


def short_help(command: str) -> type[ShortHelp]:
    """The class of a command by its name in `ESSENTIAL`."""
    return type(f"ShortHelp_{command}", (ShortHelp,), {"essential": ESSENTIAL[command]})


def _show_all(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        typer.echo(ctx.get_help(), color=ctx.color)
        raise typer.Exit


HelpAllOption = Annotated[
    bool, typer.Option("--help-all", is_eager=True, callback=_show_all, help="Show all options and exit.")
]
