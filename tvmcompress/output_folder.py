"""An output folder that is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

MARK = "report.json"
"""Every folder of ours holds it; a folder without it is somebody else's and never replaced."""

_FULL = 1 << 16


@contextmanager
def output_folder(place: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `place` at the end; when anything goes wrong nothing of it stays.

    What an earlier run has left at `place` is replaced.

    Raises:
        UserError: `place` cannot be written, is a file, holds something that is not ours, or the disk is full.
    """
    place = Path(os.path.abspath(place))
    _refuse_foreign(place)
    partial = place.with_name(f".{place.name}.partial{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise UserError(
            f"the output folder {place} cannot be written ({error.strerror}); give another one with -o"
        ) from error
    try:
        yield partial
        _replace(place, partial)
    except Exception as error:
        if shutil.disk_usage(partial if partial.exists() else place.parent).free < _FULL:
            raise UserError(
                f"the disk of {place.parent} is full; free some space or give another folder with -o"
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_foreign(place: Path) -> None:
    if place.is_dir():
        if any(place.iterdir()) and not (place / MARK).exists():
            raise UserError(f"the output folder {place} holds other files; give an empty or a new one with -o")
    elif os.path.lexists(place):
        raise UserError(f"the output folder {place} is a file; give another one with -o")


def _replace(place: Path, partial: Path) -> None:
    old = place.with_name(f".{place.name}.old{os.getpid()}")
    replaced = place.exists()
    if replaced:
        place.rename(old)
    try:
        partial.rename(place)
    except OSError:
        if replaced:
            old.rename(place)
        raise
    with contextlib.suppress(OSError):
        shutil.rmtree(old)
