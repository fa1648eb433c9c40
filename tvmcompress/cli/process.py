"""How the command line ends: what went wrong as one sentence, and as an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperGroup

from .common import print_json, print_line
from .exit_codes import ExitCode
from .quiet import VERBOSE, quiet

BUG, USER_ERROR, INTERRUPTED = ExitCode.BUG, ExitCode.INPUT, ExitCode.INTERRUPTED

# What the parser raises; typer shows of its base classes only this one.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


_COMMAND: ContextVar[str] = ContextVar("command", default="")


def command_line() -> str:
    """The command that runs, as it can be given again; empty where none does."""
    return _COMMAND.get()


class Commands(TyperGroup):
    """The commands, which end with one of `ExitCode`."""

    def main(self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        """Run a command, and exit."""
        given = sys.argv[1:] if args is None else args
        _COMMAND.set(shlex.join(["tvmcompress", *given]))
        with quiet():
            try:
                code = super().main(args, standalone_mode=False, **extra) or 0
            except BaseException as error:  # before the name of a command, or in its help
                code = _exit_code(error, "--json" in given)
            code = _flushed(code)
        if not standalone_mode:
            return code
        sys.exit(code)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what it raises becomes a sentence and an exit code."""
        stopping = _Stopping()
        given = [*ctx._protected_args, *ctx.args]  # those of the command, which is taken out of them as it runs
        try:
            with stopping, _plugin_warnings():
                return super().invoke(ctx)
        except typer.Exit:
            raise
        except BaseException as error:
            code = _exit_code(KeyboardInterrupt() if stopping.stopped else error, "--json" in given)
            raise typer.Exit(code) from None


def describe(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the sentence for an error that is the user's to mend; None for a bug."""
    # TVM is loaded with the module that defines these errors, so it is not imported for looking.
    module = sys.modules.get(f"{__package__.rpartition('.')[0]}.passes.errors")
    if module is not None and isinstance(error, module.UserError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.strerror:
        return USER_ERROR, f"{error.filename or 'the output'}: {error.strerror}"
    if isinstance(error, MemoryError):
        return USER_ERROR, "there is not enough memory; use fewer samples or a smaller batch"
    return None


def _exit_code(error: BaseException, json: bool = False) -> int:
    """Say what went wrong, as JSON too where that is asked for, and return the exit code."""
    if _is_closed_pipe(error) or _is_closed_pipe(error.__context__):  # rich and typer exit with 1 then
        return 0
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else BUG
    if isinstance(error, _UsageError):
        return _usage(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        print_line("Interrupted", "nothing half-written was left behind.")
        return INTERRUPTED
    known = describe(error)
    if known is not None:
        print_line("Error", known[1])
        if json:
            with contextlib.suppress(OSError):
                print_json({"version": 1, "verdict": {"exit_code": int(known[0]), "sentence": known[1]}})
        return known[0]
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    print_line(
        "Error", f"this is a bug ({type(error).__name__}, see above); please report it with the lines above and the command"
    )
    return BUG


def _is_closed_pipe(error: BaseException | None) -> bool:
    """Whether whoever reads what we print has seen enough."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _usage(error: Exception) -> int:
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return USER_ERROR  # that error has shown the help
    command = context.command_path if context is not None else "tvmcompress"
    sentence = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    print_line("Error", f"{sentence[:1].lower()}{sentence[1:]}; see {command} --help")
    return USER_ERROR


def _flushed(code: int) -> int:
    """The exit code, after all is written; a closed pipe is none of our errors, a full disk is."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What Python would try to write at its end goes nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or _exit_code(error)
    return code


@contextmanager
def _plugin_warnings() -> Iterator[None]:
    """Of all that Python packages warn of only packages of ours that were left out are named, one sentence each."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def showwarning(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if category.__name__ == "PluginWarning":
                print_line("Warning", str(message))
            elif os.environ.get(VERBOSE):
                show(message, category, *place)

        warnings.showwarning = showwarning  # type: ignore[assignment]
        yield


class _Stopping:
    """Lets Ctrl-C and the signals that end a process unwind the stack alike, so that nothing half-written stays.

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
