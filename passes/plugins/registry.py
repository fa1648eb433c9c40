"""One table from names to entries, for everything that is chosen by name.

Entries come from three places: from code that registers them, from `lazy` ones of our own that are imported when one is asked
for, and from installed packages, which name theirs as entry points of the table's group:

    [project.entry-points."tvmcompress.observers"]
    trimmed = "my_package.observers:Trimmed"

Packages are looked for when a table is listed, or asked for a name that is not ours; one that cannot be imported is named in a
`PluginWarning` and left out.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from ..errors import UserError

T = TypeVar("T")


class PluginWarning(UserWarning):
    """Another package's entry cannot be used and is left out; the sentence says which and why."""


def no_such(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not one of those known: what was meant perhaps, or what there is."""
    names = list(known)
    close = get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names)}"
    return UserError(f"there is no {kind} '{name}'; {hint}")


def first_sentence(entry: object) -> str:
    """The first sentence of the documentation of something."""
    paragraph = " ".join((inspect.getdoc(entry) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0]


class Registry(Mapping[str, T]):
    """A table from names to entries.

    Args:
        kind: What an entry is, for messages: "observer".
        group: The entry points that other packages name theirs in; empty where they cannot.
        lazy: Entries of our own by name, as "module:attribute", imported when they are asked for.
        of: What theirs must be instances or subclasses of.
        prefix: Stands before the names that `register` is given.
    """

    def __init__(
        self, kind: str, group: str = "", lazy: Mapping[str, str] | None = None, of: Any = Callable, prefix: str = ""
    ) -> None:
        self.kind, self.group, self.prefix = kind, group, prefix
        self._of = of
        self._lazy = {name: EntryPoint(name, value, group) for name, value in (lazy or {}).items()}
        self._entries: dict[str, T] = {}
        self._packages: dict[str, EntryPoint] | None = None
        self._faults: dict[str, str] = {}
        self._untold: list[str] = []

    def register(self, *names: str) -> Callable[[T], T]:
        """Register what is decorated under `names`, in the place of what had them."""

        def add(entry: T) -> T:
            for name in names:
                self[self.prefix + name] = entry
            return entry

        return add

    def __setitem__(self, name: str, entry: T) -> None:
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        """The entry of a name.

        Raises:
            UserError: There is none, or the package that brings it cannot be imported.
        """
        if self._has(name):
            return self._entries[name]
        if name in self._faults:
            raise UserError(self._faults[name])
        raise no_such(self.kind, name, self)

    def get(self, name: str, default: T | None = None) -> T | None:  # type: ignore[override]
        """The entry of a name, or `default`."""
        return self._entries[name] if self._has(name) else default

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._lazy or (isinstance(name, str) and self._has(name))

    def __iter__(self) -> Iterator[str]:
        """All names: ours in their order, then those of other packages by name."""
        theirs = [name for name in self._plugins() if self._has(name)]
        ours = [name for name in self._entries if name not in theirs and name not in self._lazy]
        while self._untold:
            warnings.warn(f"{self._untold.pop(0)}; it is left out", PluginWarning, stacklevel=2)
        return iter([*ours, *self._lazy, *theirs])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def summaries(self) -> dict[str, str]:
        """The first sentence of each entry's documentation, by name."""
        return {name: first_sentence(self[name]) for name in self}

    def _has(self, name: str) -> bool:
        """Whether there is a usable entry, imported if need be."""
        if name in self._entries:
            return True
        if name in self._lazy:
            self._entries[name] = self._lazy[name].load()
            return True
        point = self._plugins().get(name)
        if point is None or name in self._faults:
            return False
        try:
            entry = point.load()
            why = "" if _is(entry, self._of) else f"{point.value} is not a {self._of.__name__}"
        except Exception as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if why:
            self._faults[name] = self._complain(point, f"cannot be used: {why}")
            return False
        self._entries[name] = entry
        return True

    def _plugins(self) -> dict[str, EntryPoint]:
        """What other packages name, by name."""
        if self._packages is None:
            self._packages = {}
            for point in sorted(entry_points(group=self.group), key=lambda point: point.name) if self.group else ():
                if point.name in self._entries or point.name in self._lazy or point.name in self._packages:
                    self._complain(point, "has a name that is taken")
                else:
                    self._packages[point.name] = point
        return self._packages

    def _complain(self, point: EntryPoint, what: str) -> str:
        """Keep a sentence on another package's entry for the next listing."""
        package = point.dist.name if point.dist is not None else point.module
        self._untold.append(f"the {self.kind} '{point.name}' of the package {package} {what}")
        return self._untold[-1]


def _is(entry: object, kind: type) -> bool:
    return isinstance(entry, kind) or (isinstance(entry, type) and issubclass(entry, kind))
