"""Building beside the output folder, so that a build that fails leaves nothing half-written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...passes.errors import UserError
from ..artifact_folder import FILE, make_folder


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder to build in; what is in it at the end moves to `output`, the description of the artifact last.

    Raises:
        UserError: `output` cannot be written.
    """
    make_folder(output)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=output) as name:
        work = Path(name)
        yield work
        (output / FILE).unlink(missing_ok=True)
        paths = sorted((path for path in work.rglob("*") if path.is_file()), key=lambda path: path.name == FILE)
        try:
            for path in paths:
                place = output / path.relative_to(work)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror or error}") from error
