"""The command `tvmcompress`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .benchmark import benchmark
from .compile import compile as compile_model
from .compress import compress
from .devices import devices
from .distill import distill
from .doctor import doctor
from .evaluate import evaluate
from .exit_codes import listing
from .inspect import inspect
from .logs import logs
from .operators import operators
from .options.essential import short_help
from .package import package
from .presets import presets
from .process import Commands
from .run import run
from .schema import schema
from .search import search
from .sensitivity import sensitivity
from .targets import targets
from .tune import tune

app = typer.Typer(
    name="tvmcompress",
    cls=Commands,
    help="Compress trained neural networks for edge devices: prune, quantize, tune, compile and [bold]measure[/bold] "
    "on x86-64, Arm Cortex-A and Cortex-M. Built on Apache TVM.",
    epilog="First steps:  tvmcompress inspect model.onnx   ·   "
    "tvmcompress compress model.onnx --calib data.npz -t cortex-m4   ·   tvmcompress doctor\n\n"
    f"Exit codes:  {listing()}.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tvmcompress {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """What stands before the name of a command."""


app.command()(inspect)
app.command(cls=short_help("sensitivity"))(sensitivity)
app.command(cls=short_help("compress"))(compress)
app.command("compile", cls=short_help("compile"))(compile_model)
app.command(cls=short_help("evaluate"))(evaluate)
app.command(cls=short_help("run"))(run)
app.command(cls=short_help("benchmark"))(benchmark)
app.command(cls=short_help("search"))(search)
app.command(cls=short_help("distill"))(distill)
app.command(cls=short_help("tune"))(tune)
app.add_typer(logs, name="logs")
app.command()(package)
app.command()(targets)
app.command()(doctor)
app.command()(devices)
app.command()(presets)
app.command()(operators)
app.command()(schema)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
