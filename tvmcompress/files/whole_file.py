"""A file that is there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..passes.errors import DiskFullError, UserError
from .staging import staging_folder


@contextmanager
def whole_file(place: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to, which becomes `place` at the end; what stood there stays when anything goes wrong.

    A link is followed; a device or a pipe is written to as it is.

    Raises:
        UserError: It cannot be written.
    """
    final = Path(os.path.realpath(place))
    try:
        if os.path.exists(place) and not os.path.isfile(place):
            yield Path(place)
            return
        with staging_folder(final.parent, f".{final.name}.partial-") as folder:
            yield folder / "content"
            (folder / "content").replace(final)
    except OSError as error:
        raise cannot_be_written(place, error) from error


def cannot_be_written(place: str | os.PathLike[str], error: OSError) -> UserError:
    """What to raise for an error of the system on writing to `place`."""
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else UserError
    return kind(f"{place} cannot be written: {error.strerror or error}")
