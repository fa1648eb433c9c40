"""Compiled functions on disk, kept for every later build of any model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..passes._tvm import FFI_VERSION, TVM_VERSION, tvm

CACHE_VARIABLE = "TVMCOMPRESS_CACHE"
"""Where compiled functions are kept; empty for nowhere."""

_DIGEST = hashlib.sha256().digest_size
_MOST_BYTES = 256 << 20
"""Kept objects take at most so much; those not used for longest go first."""


@dataclass(frozen=True)
class Made:
    """What compiling a function gives.

    Attributes:
        content: The object file.
        facts: What its callers have to know, as JSON has it.
    """

    content: bytes
    facts: dict[str, Any] = field(default_factory=dict)


def cache_folder() -> Path | None:
    """Where objects are kept; None for nowhere.

    `$TVMCOMPRESS_CACHE/objects`, nowhere where that variable is empty; without it a folder in the user's cache.
    """
    place = os.environ.get(CACHE_VARIABLE)
    if place == "":
        return None
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvmcompress"
    return (Path(place) if place else base) / "objects"


class ObjectCache:
    """The kept objects, each in a file named by a digest of all that it depends on.

    Several processes may share the folder: files appear whole or not at all, and one that is damaged is passed over.

    Args:
        identity: What the objects depend on besides the function: the target, and how they are compiled.
    """

    def __init__(self, identity: str) -> None:
        self.folder = cache_folder()
        context = tvm.transform.PassContext.current()
        settings = f"{context.opt_level} {sorted(map(str, context.disabled_pass))} {context.config}"
        self._salt = "\n".join([TVM_VERSION, FFI_VERSION, _own_version(), settings, identity, ""]).encode()

    def key(self, func: tvm.tirx.PrimFunc) -> str:
        """The name under which the object of a function is kept."""
        return hashlib.sha256(self._salt + tvm.ir.save_json(func).encode()).hexdigest()

    def take(self, key: str) -> Made | None:
        """What is kept, if it is there and whole."""
        if self.folder is None:
            return None
        place = self.folder / key
        try:
            data = place.read_bytes()
            if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
                return None
            facts, _, content = data[:-_DIGEST].partition(b"\n")
            made = Made(content, json.loads(facts))
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError):  # the folder may be read-only
            os.utime(place)
        return made

    def keep(self, key: str, made: Made) -> None:
        """Keep an object. A cache that cannot be written is none."""
        if self.folder is None:
            return
        place = self.folder / key
        partial = place.with_name(f".{key}.{os.getpid()}")
        data = json.dumps(made.facts).encode() + b"\n" + made.content
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # A damaged object would be linked without a word.
            partial.write_bytes(data + hashlib.sha256(data).digest())
            partial.replace(place)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()

    def shrink(self) -> None:
        """Remove what was not used for longest."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            files = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(self.folder))
            excess = sum(size for _, size, _ in files) - _MOST_BYTES
            for _, size, path in files:
                if excess <= 0:
                    break
                os.unlink(path)
                excess -= size


@cache
def digest_of(*sources: str) -> str:
    """A digest of source files: in a checkout what they do changes without a change of version."""
    return hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()


@cache
def _own_version() -> str:
    try:
        return version("tvmcompress")
    except PackageNotFoundError:
        return ""
