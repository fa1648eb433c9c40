"""Keeping standard output and error to what the commands say.

TVM, LLVM and other native code write to the file descriptors themselves, past Python; Python packages warn and log. Within
`quiet` the two descriptors lead nowhere, and what the commands print goes to where they led before.
"""

from __future__ import annotations

import codecs
import faulthandler
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

VERBOSE = "TVMCOMPRESS_VERBOSE"
"""Set to anything, this variable of the environment lets everything through."""

_ASCII = {"━": "=", "─": "-", "·": "-", "±": "+-", "×": "x", "…": "...", "→": "->", "–": "-"}


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing but what this process prints itself reaches standard output and error.

    What cannot be written in the encoding of the terminal is replaced. Where Python's own streams are not the descriptors 1
    and 2 (within tests, for instance), these are left alone.
    """
    if not os.environ.get("COLUMNS", "").isdecimal() or int(os.environ["COLUMNS"]) == 0:
        os.environ.pop("COLUMNS", None)  # 0 is "unknown" to a terminal, and a width to Rich
    if os.environ.get(VERBOSE) or not _are_descriptors():
        yield
        return
    old = sys.stdout, sys.stderr
    codecs.register_error("tvmcompress", _replacement)
    for stream in old:
        stream.flush()
    saved = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    level = logging.root.manager.disable
    try:
        sys.stdout, sys.stderr = (_reopened(number, stream) for number, stream in zip(saved, old))
        for number in (1, 2):
            os.dup2(nowhere, number)
        faulthandler.enable(sys.stderr)
        logging.disable()
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        logging.disable(level)
        faulthandler.disable()
        sys.stdout, sys.stderr = old
        for number, copy in zip((1, 2), saved):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def _are_descriptors() -> bool:
    try:
        return (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    except (AttributeError, OSError, ValueError):
        return False


def _reopened(number: int, stream: TextIO) -> TextIO:
    return open(number, "w", encoding=stream.encoding, errors="tvmcompress", buffering=1, closefd=False)


def _replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end
