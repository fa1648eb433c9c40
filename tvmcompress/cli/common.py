"""What all commands share: where they print, and how."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from ..report.record import Report

WIDE = 100

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON; nothing else goes to standard output.")]

HtmlOption = Annotated[bool, typer.Option("--html/--no-html", help="Also write report.html: the figures as one page.")]

_STYLES = {"Error": "bold red", "Warning": "bold yellow"}


def output() -> Console:
    """Where results go; a file or a pipe gets tables of 100 columns. Names of models and files are no markup."""
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=WIDE, markup=False, emoji=False)


def is_wide(console: Console) -> bool:
    """Whether the widest tables fit."""
    return console.width >= WIDE


def errors() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True)


def print_line(kind: str, sentence: str) -> None:
    """Print one line on standard error: "Error: ..."."""
    line = Text.assemble((f"{kind}:", _STYLES.get(kind, "bold")), " ", " ".join(sentence.split()))
    with contextlib.suppress(OSError):  # there is nowhere else to say it
        errors().print(line, soft_wrap=True)


def show_page(path: Path) -> None:
    """Say where the report as a page is."""
    output().print(Text.assemble("Look at ", (str(path), "bold")), soft_wrap=True)


def print_json(result: BaseModel | Any) -> None:
    """Print a record, or plain values, as JSON that any terminal can show."""
    plain = json.loads(result.model_dump_json()) if hasattr(result, "model_dump_json") else result
    print(json.dumps(plain, indent=1))


def conclude(report: Report, output: Path | None) -> None:
    """End a command as its report says, after all is shown, and written to `output`."""
    if report.verdict.exit_code:
        print_line("Error", report.verdict.sentence + (f"; what succeeded is in {output}" if output is not None else ""))
        raise typer.Exit(report.verdict.exit_code)


def need_matplotlib() -> None:
    """Refuse at the start what would be missing at the end."""
    from importlib.util import find_spec

    from ..errors import MissingToolError

    if find_spec("matplotlib") is None:
        raise MissingToolError("plots need matplotlib; install it with pip install 'tvmcompress[report]', or say --no-plot")
