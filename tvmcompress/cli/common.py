"""What all commands share: errors as one sentence, consoles."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

from .options.groups import with_groups

USER_ERROR = 2
INTERRUPTED = 130
WIDE = 100

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON; nothing else goes to standard output.")]

def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command: groups of options become options of it; what the user can mend becomes one sentence and exit code 2; Ctrl-C
    and SIGTERM end it cleanly."""
    grouped = with_groups(function)

    @functools.wraps(grouped)
    def run(*args: Any, **kwargs: Any) -> None:
        stopping = _Stopping()
        try:
            with stopping, warnings.catch_warnings():
                _show_plugin_warnings()
                return grouped(*args, **kwargs)
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


def need_matplotlib() -> None:
    """Refuse at the start what would be missing at the end."""
    from importlib.util import find_spec

    from ..errors import MissingToolError

    if find_spec("matplotlib") is None:
        raise MissingToolError("plots need matplotlib; install it with pip install 'tvmcompress[report]', or say --no-plot")


def _show_plugin_warnings() -> None:
    """Packages that were left out are named, one sentence each; the place in our code that asked for them says nothing."""
    show = warnings.showwarning

    def showwarning(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if category.__name__ == "PluginWarning":
            errors().print(f"[bold yellow]Warning:[/bold yellow] {_escape(str(message))}", soft_wrap=True, highlight=False)
        else:
            show(message, category, *place)

    warnings.showwarning = showwarning  # type: ignore[assignment]


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
    """Lets Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) unwind the stack alike, so that nothing half-written stays.

    Attributes:
        stopped: Whether one of them came. An interrupt inside a pass comes back from TVM as another error.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> _Stopping:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores the end of the terminal, and so do we then.
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            with contextlib.suppress(ValueError):  # not in the main thread
                self._old[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self.stopped = True
        raise KeyboardInterrupt
