"""What we have written into a folder, by size and checksum, so that nothing else is ever replaced, removed or trusted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MANIFEST = "manifest.json"
"""The file of an output folder that lists all others."""


class WrittenFile(BaseModel):
    """A file as it was written.

    Attributes:
        size: Bytes.
        sha256: Of its content, hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @staticmethod
    def of(path: Path) -> WrittenFile:
        """The file at `path` as it is."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return WrittenFile(size=path.stat().st_size, sha256=digest)

    def is_at(self, path: Path) -> bool:
        """Whether `path` still is this file; a link to it is another one."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != self.size:
            return False
        return WrittenFile.of(path) == self


Manifest = Mapping[str, WrittenFile]
_LISTED = TypeAdapter(dict[str, WrittenFile])


def describe(folder: Path) -> Manifest:
    """All files below a folder, by their paths with slashes."""
    return {name: WrittenFile.of(folder / name) for name in _names(folder) if not name.endswith("/")}


def write_manifest(folder: Path) -> None:
    """List all files of a folder in it."""
    listed = describe(folder)
    (folder / MANIFEST).write_bytes(_LISTED.dump_json(dict(listed), indent=1))


def read_manifest(folder: Path) -> Manifest | None:
    """What `write_manifest` has listed; None where there is no list, or one that is damaged."""
    try:
        return _LISTED.validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def foreign_files(folder: Path, ignored: str) -> list[str]:
    """What lies in an output folder and is not, or no longer, as its manifest says.

    Args:
        folder: The folder.
        ignored: Start of the names, directly in it, that are passed over.
    """
    found_list = read_manifest(folder)
    listed = found_list or {}
    parents = {f"{parent}/" for name in listed for parent in map(str, Path(name).parents)}
    found = []
    for name in _names(folder):
        if name.startswith(ignored) or (name == MANIFEST and found_list is not None):
            continue
        if name.endswith("/") and name in parents:
            continue
        if name not in listed or not listed[name].is_at(folder / name):
            found.append(name)
    return found


def _names(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder, and of its subfolders with a slash at the end, in order."""
    for place, folders, files in os.walk(folder):
        base = Path(place).relative_to(folder)
        folders.sort()
        for name in folders:
            # A link to a folder is not walked through, so it counts as a file.
            yield str(base / name) + ("" if (Path(place) / name).is_symlink() else "/")
        for name in sorted(files):
            yield str(base / name)
