"""What all commands share: errors as one sentence, consoles, and options that several have."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

if TYPE_CHECKING:
    from ..model import InputSpec, Model, Preprocessing

P = ParamSpec("P")
R = TypeVar("R")

USER_ERROR = 2
INTERRUPTED = 130
WIDE = 100

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON; nothing else goes to standard output.")]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME:DIMS", help="Shape of an input that the file leaves open: image:1,3,224,224.",
                 rich_help_panel="Model"),
]  # fmt: skip
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Size of an open leading dimension.", rich_help_panel="Model")]
DataKeyOption = Annotated[
    str | None, typer.Option("--data-key", help="Name of the data in an .npz file.", rich_help_panel="Data")
]
LabelKeyOption = Annotated[
    str | None, typer.Option("--label-key", help="Name of the labels in an .npz file.", rich_help_panel="Data")
]
LayoutOption = Annotated[
    str | None,
    typer.Option("--layout", help="Layout of the data: NCHW or NHWC; seen from its shape by default.", rich_help_panel="Data"),
]
ScaleOption = Annotated[
    float | None,
    typer.Option("--scale", help="Raw data is multiplied by this, e.g. 0.00392157 for 1/255.", rich_help_panel="Data"),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean",
        help="Then this is subtracted: one value, or one a channel (0.485,0.456,0.406).",
        rich_help_panel="Data",
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option("--std", help="Then it is divided by this: one value, or one a channel.", rich_help_panel="Data"),
]


def command(function: Callable[P, R]) -> Callable[P, R]:
    """A command: what the user can mend becomes one sentence and exit code 2; Ctrl-C and SIGTERM end it cleanly."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        stopping = _Stopping()
        try:
            with stopping:
                return function(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if stopping.stopped or isinstance(error, KeyboardInterrupt):
                errors().print("[bold]Interrupted[/bold]; nothing was left behind.")
                raise typer.Exit(INTERRUPTED) from None
            sentence = _sentence(error)
            if sentence is None:
                raise
            errors().print(f"[bold red]Error:[/bold red] {_escape(sentence)}", soft_wrap=True, highlight=False)
            raise typer.Exit(USER_ERROR) from None

    return run


def output() -> Console:
    """Where results go; a file or a pipe gets tables of 100 columns."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=WIDE)


def is_wide(console: Console) -> bool:
    """Whether the widest tables fit."""
    return console.width >= WIDE


def errors() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True)


def load_model(path: Path, shapes: list[str] | None = None, batch: int = 1) -> Model:
    """The model of a command's argument."""
    from ..importing import load

    return load(path, shapes=parse_shapes(shapes), batch=batch)


def parse_shapes(entries: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Shapes by input name from `name:1,3,224,224`."""
    from ..errors import UserError

    shapes = {}
    for entry in entries or []:
        name, colon, dims = entry.rpartition(":")
        parts = dims.replace("x", ",").split(",")
        if not colon or not name or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise UserError(f"--shape {entry} is not of the form NAME:1,3,224,224")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def preprocessing(scale: float | None, mean: str | None, std: str | None) -> Preprocessing | None:
    """What --scale, --mean and --std say; None where none was given."""
    if scale is None and mean is None and std is None:
        return None
    from ..errors import UserError
    from ..model import Preprocessing

    values: dict[str, Any] = {}
    if scale is not None:
        values["scale"] = scale
    for name, text in (("mean", mean), ("std", std)):
        if text is None:
            continue
        try:
            values[name] = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise UserError(f"--{name} {text} is not a number or a list of numbers with commas") from None
    if 0.0 in values.get("std", ()):
        raise UserError("--std must not be zero")
    return Preprocessing(**values)


def check_channels(steps: Preprocessing | None, inputs: tuple[InputSpec, ...]) -> None:
    """Refuse a list of means or deviations that is not one a channel."""
    from ..errors import UserError

    if steps is None:
        return
    shape = inputs[0].shape
    channels = shape[1] if len(shape) > 1 else 1
    for name, values in (("mean", steps.mean), ("std", steps.std)):
        if len(values) not in (1, channels):
            raise UserError(f"--{name} has {len(values)} values, but input '{inputs[0].name}' has {channels} channels")


def need_matplotlib() -> None:
    """Refuse at the start what would be missing at the end."""
    from importlib.util import find_spec

    from ..errors import MissingToolError

    if find_spec("matplotlib") is None:
        raise MissingToolError("plots need matplotlib; install it with pip install 'tvmcompress[report]', or say --no-plot")


def _sentence(error: Exception) -> str | None:
    """What to tell the user, if the error is theirs to mend."""
    # TVM is loaded with the module that defines these errors, so it is not imported for looking.
    module = sys.modules.get(f"{__package__.rpartition('.')[0]}.passes.errors")
    if module is not None and isinstance(error, module.UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "there is not enough memory; use fewer samples or a smaller batch"
    return None


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(" ".join(text.split()))


class _Stopping:
    """Lets Ctrl-C and SIGTERM unwind the stack alike, so that nothing half-written stays.

    Attributes:
        stopped: Whether one of them came. An interrupt inside a pass comes back from TVM as another error.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Stopping:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread
                self._old[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self.stopped = True
        raise KeyboardInterrupt
