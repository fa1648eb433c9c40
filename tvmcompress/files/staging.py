"""Folders of work in progress, which nobody has to clean up behind a run that was killed."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_LOCK = ".lock"


@contextmanager
def staging_folder(parent: Path, prefix: str, recover: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """A new folder in `parent`, gone at the end. Whoever works in it holds its lock, which the kernel lets go of when the
    process ends in whatever way; so what killed runs have left under such names is known, and removed first.

    Args:
        parent: Where it is made; on the same file system what is in it can be renamed to its final place.
        prefix: Start of its name.
        recover: Told each folder that a killed run has left, before it is removed.

    Raises:
        OSError: It cannot be made.
    """
    remove_leftovers(parent, prefix, recover)
    made: list[Path] = []  # noted before they are made, since an interrupt may come at any moment
    try:
        folder, lock = _claimed(parent, prefix, made)
        with lock:
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(parent: Path, prefix: str, recover: Callable[[Path], None] | None = None) -> None:
    """Remove what killed runs have left."""
    # The rest of the name is what `_claimed` makes.
    pattern = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}")
    with suppress(OSError):
        for entry in [entry for entry in os.scandir(parent) if pattern.fullmatch(entry.name)]:
            with suppress(OSError):
                _remove_leftover(Path(entry.path), recover)


def _remove_leftover(folder: Path, recover: Callable[[Path], None] | None) -> None:
    if folder.is_symlink() or not folder.is_dir():
        return
    if not (folder / _LOCK).exists():
        # Killed before it was locked; if it is being made just now, its maker tries again.
        folder.rmdir()
        return
    with open(folder / _LOCK, "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if recover is not None:
            recover(folder)
        shutil.rmtree(folder)


def _claimed(parent: Path, prefix: str, made: list[Path]) -> tuple[Path, IO[str]]:
    while True:
        folder = parent / (prefix + secrets.token_hex(4))
        made.append(folder)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            made.remove(folder)
            continue
        try:
            lock = open(folder / _LOCK, "w")  # noqa: SIM115  (the caller closes it)
        except FileNotFoundError:
            continue
        except OSError:
            folder.rmdir()
            raise
        # Where a file system has no locks, nobody can take this one either.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / _LOCK).exists():
            return folder, lock
        lock.close()
