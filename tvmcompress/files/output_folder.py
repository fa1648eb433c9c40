"""An output folder that is there whole or not at all, in which only what we have written is ever replaced."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..passes.errors import DiskFullError, UserError
from .manifest import foreign_files, write_manifest
from .staging import remove_leftovers, staging_folder
from .whole_file import cannot_be_written

_FULL = 1 << 16
_NEW, _OLD, _EMPTIED = "content", "old", "emptied"
"""In the folder of work in progress: what was made, what it replaces, and that all of this was put away."""

_INSIDE = ".partial-"


@contextmanager
def output_folder(place: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `place` at the end; when anything goes wrong nothing of it stays.

    What an earlier run has left at `place` is replaced, the folder itself stays (it may be somebody's working directory, or
    where a disk is mounted). A list of all files is written with them (`manifest.json`): a folder with anything that is not
    as such a list says is left alone. A link is followed.

    Raises:
        UserError: `place` cannot be written, is a file, holds something that is not ours, or a disk is full.
    """
    given, place = place, Path(os.path.realpath(place))
    if os.path.lexists(place) and not place.is_dir():
        raise UserError(f"the output folder {given} is a file; give another one with -o")
    made: list[Path] = []
    try:
        with _partial(place, made) as partial:
            _refuse_foreign(place, given)
            (partial / _NEW).mkdir()
            try:
                yield partial / _NEW
                write_manifest(partial / _NEW)
            except Exception as error:
                full = _full_disk(error, place)
                if full is None:
                    raise
                raise full from error
            _install(partial, place, given)
            made.clear()
    except _Unwritable as error:
        raise _full_disk(error.reason, place) or UserError(
            f"the output folder {given} cannot be written ({error.reason.strerror}); give another one with -o"
        ) from error.reason
    finally:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()


class _Unwritable(Exception):
    def __init__(self, reason: OSError) -> None:
        self.reason = reason


@contextmanager
def _partial(place: Path, made: list[Path]) -> Iterator[Path]:
    """A folder for work in progress: in `place` where that is there, beside it where it is not.

    Args:
        place: The output folder.
        made: Gets the folders that had to be made above it.
    """

    def recover(leftover: Path) -> None:
        _recover(leftover, place)

    beside = f".{place.name}{_INSIDE}"
    try:
        if place.is_dir():
            parent, prefix = place, _INSIDE
            remove_leftovers(place.parent, beside, recover)
        else:
            parent, prefix = place.parent, beside
            for folder in [*reversed(parent.parents), parent]:
                if not folder.is_dir():
                    folder.mkdir()
                    made.append(folder)
        staging = staging_folder(parent, prefix, recover)
        folder = staging.__enter__()
    except OSError as error:
        raise _Unwritable(error) from error
    try:
        yield folder
    finally:
        staging.__exit__(None, None, None)


def _refuse_foreign(place: Path, given: Path) -> None:
    if not place.is_dir():
        return
    foreign = foreign_files(place, _INSIDE)
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise UserError(
            f"the output folder {given} holds other files than a run has left there ({', '.join(foreign[:3])}{more}); "
            "move them away, or give another folder with -o"
        )


def _install(partial: Path, place: Path, given: Path) -> None:
    """Make what is in `partial` the content of `place`."""
    try:
        if not place.exists():
            (partial / _NEW).rename(place)
            return
        with _locked(place):
            _refuse_foreign(place, given)
            _exchange(partial, place)
            _remove_old(partial, place)
    except OSError as error:
        raise _Unwritable(error) from error


def _exchange(partial: Path, place: Path) -> None:
    """Put the old files away and the new ones in their place; when that fails all are where they were."""
    moves: list[tuple[Path, Path]] = []

    def move(source: Path, target: Path) -> None:
        for entry in _entries(source):
            moves.append((entry, target / entry.name))
            entry.rename(target / entry.name)

    (partial / _OLD).mkdir()
    try:
        move(place, partial / _OLD)
        (partial / _EMPTIED).touch()
        move(partial / _NEW, place)
    except BaseException:
        for source, target in reversed(moves):
            if not os.path.lexists(source):
                target.rename(source)
        raise


def _recover(partial: Path, place: Path) -> None:
    """Come to the end of an exchange in which a run was killed: back while old files were being put away, forth later."""
    if (partial / _OLD).is_dir():
        for entry in _entries(partial / (_NEW if (partial / _EMPTIED).exists() else _OLD)):
            entry.rename(place / entry.name)
        _remove_old(partial, place)


def _remove_old(partial: Path, place: Path) -> None:
    """Remove the old files, but for what somebody has added since they were looked through."""
    old = partial / _OLD
    for name in {name.split("/")[0] for name in foreign_files(old, _INSIDE)}:
        (old / name).rename(place / name if not os.path.lexists(place / name) else place / f"{name}.old")
    shutil.rmtree(old, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    return [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(_INSIDE)]


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One run at a time replaces what is in a folder."""
    handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _full_disk(error: Exception, place: Path) -> UserError | None:
    """What to tell of an error that a full disk has caused: that of the output, or that of temporary files."""
    if isinstance(error, OSError) and not isinstance(cannot_be_written(place, error), DiskFullError):
        return None
    existing = next(folder for folder in [place, *place.parents] if folder.is_dir())
    for find in (lambda: existing, lambda: Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder = find()
            usage = shutil.disk_usage(folder)
            if usage.total and usage.free < _FULL:
                other = "give another folder with -o" if folder == existing else "name another one in TMPDIR"
                return DiskFullError(f"the disk of {folder} is full; free some space, or {other}")
    if isinstance(error, OSError):
        return DiskFullError(f"{error.filename or existing} cannot be written: {error.strerror}; free some space")
    return None
