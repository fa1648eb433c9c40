"""The command `tvmcompress`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .benchmark import benchmark
from .compress import compress
from .devices import devices
from .evaluate import evaluate
from .exit_codes import listing
from .inspect import inspect
from .logs import logs
from .operators import operators
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
    "tvmcompress compress model.onnx --calib data.npz --prune 0.5 --quantize int8 --target x86 -o out/\n\n"
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
app.command()(sensitivity)
app.command()(compress)
app.command()(evaluate)
app.command()(run)
app.command()(benchmark)
app.command()(search)
app.command()(tune)
app.add_typer(logs, name="logs")
app.command()(package)
app.command()(targets)
app.command()(devices)
app.command()(presets)
app.command()(operators)
app.command()(schema)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
