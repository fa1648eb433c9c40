"""Building beside the output folder, so that a build that fails leaves nothing half-written and takes nothing away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files.manifest import describe
from ..files.staging import staging_folder
from ..files.whole_file import cannot_be_written
from ..passes.errors import UserError
from .artifact_folder import FILE, files_of, make_folder


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder to build in; what is in it at the end moves to `output`, the description of the artifact last.

    What an earlier build has left there goes, by the list in its description. All other files stay.

    Raises:
        UserError: `output` cannot be written, or a file that no build has left is in the way.
    """
    # Absolute: a compiler takes a path that starts with "-" or "@" for something else.
    output = output.absolute()
    make_folder(output)
    try:
        with staging_folder(output, ".build-") as folder:
            work = folder / "content"
            work.mkdir()
            yield work
            _move(work, output)
    except OSError as error:
        raise cannot_be_written(error.filename or output, error) from error


def _move(work: Path, output: Path) -> None:
    old, new = files_of(output), describe(work)
    for name in new:
        place = output / name
        known = bool(old) if name == FILE else name in old and old[name].is_at(place)
        if os.path.lexists(place) and not known:
            raise UserError(
                f"{place} is in the way: no build has left it there as it is; move it away, or build into another folder"
            )
    (output / FILE).unlink(missing_ok=True)
    for name, file in old.items():
        if name not in new and file.is_at(output / name):
            (output / name).unlink()
    for name in sorted(new, key=lambda name: name == FILE):
        place = output / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (work / name).replace(place)
