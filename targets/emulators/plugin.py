"""The counting plugin: compiled once for the user, and its results read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...passes.errors import UserError
from .tools import run

_SOURCES = [Path(__file__).parent / "plugin" / name for name in ("count.c", "classes.h")]
InstructionSet = Literal["a64", "a32", "m"]
"""A64; A32, with functions in T32; T32 as microcontrollers have it, with Helium."""
EACH = "each.txt"
BEGIN, END = "tvmcompress_region_begin", "tvmcompress_region_end"
"""Functions that a program under measurement calls around what is to be counted."""


@dataclass(frozen=True)
class Counts:
    """What the plugin counted.

    Attributes:
        regions: Executed instructions of each region, in order.
        calls: The calls that were to be told apart, in order: the function, and the instructions executed until it returned.
        functions: Executed instructions inside regions by function, most first.
        classes: Executed instructions inside regions by class, where that was asked for.
    """

    regions: tuple[int, ...]
    calls: tuple[tuple[str, int], ...]
    functions: dict[str, int]
    classes: dict[str, int]


def plugin_path() -> Path:
    """The compiled plugin; compiled on first use into the user's cache.

    Raises:
        MissingToolError: There is no C compiler.
        UserError: It does not compile.
    """
    source = b"".join(path.read_bytes() for path in _SOURCES)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tvmcompress"
    library = cache / f"count-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not library.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Others may be compiling it at the same time, in this process too.
        with tempfile.TemporaryDirectory(prefix=".count-", dir=cache) as scratch:
            made = Path(scratch) / library.name
            run(["cc", "-shared", "-fPIC", "-O2", "-o", made, _SOURCES[0]], what="compiling the counting plugin", timeout=60)
            made.replace(library)
    return library


def plugin_argument(
    elf: Path,
    nm: str,
    folder: Path,
    *,
    classes: InstructionSet | None = None,
    calls: Sequence[str] = (),
    driver: str | None = None,
    each: bool = False,
) -> tuple[str, Path]:
    """The `-plugin` argument for a program, and the file that results go to.

    Args:
        elf: The program.
        nm: The symbol lister of its tool chain.
        folder: Where to put the list of symbols and the results, and where the emulator is to run.
        classes: The program's instruction set, to count by class; None not to.
        calls: Functions whose calls are told apart; `driver` calls them one after the other.
        driver: The function that does.
        each: Whether to count every instruction on its own, into `EACH` in the folder; with `classes` alone.
    """
    lines, marks = [], {}
    for line in run([nm, "-S", "--defined-only", elf], what="reading symbols", timeout=60).splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "tTwW":
            address = int(fields[0], 16)
            lines.append(f"{address:x} {int(fields[1], 16):x} {fields[3]}")
            # Bit 0 is the mark of Thumb code.
            marks[fields[3]] = address & ~1
    # The emulator runs in the folder: a comma in its path would start another option.
    (folder / "symbols.txt").write_text("\n".join(lines) + "\n")
    options = ["symbols=symbols.txt", f"begin={marks[BEGIN]:x}", f"end={marks[END]:x}", "out=counts.txt"]
    if calls:
        (folder / "calls.txt").write_text("\n".join(calls) + "\n")
        # Behind the symbols: the plugin reads its arguments in order.
        options += ["calls=calls.txt", f"driver={driver}"]
    if classes is not None:
        options.append(f"classes={classes}")
        if each:
            options.append(f"each={EACH}")
    plugin = str(plugin_path()).replace(",", ",,")
    return f"{plugin},{','.join(options)}", folder / "counts.txt"


def read_counts(path: Path) -> Counts:
    """Read what the plugin wrote.

    Raises:
        UserError: It did not come to its end.
    """
    regions: list[int] = []
    calls: list[tuple[str, int]] = []
    functions: dict[str, int] = {}
    classes: dict[str, int] = {}
    lines = path.read_text().splitlines()
    if not lines or not lines[-1].startswith("total "):
        raise UserError(f"the counts of the emulator were not all written: {path.parent} may be on a full disk")
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "region":
            regions.append(int(rest))
        elif kind == "function":
            count, _, name = rest.partition(" ")
            if name not in (BEGIN, END):
                functions[name] = functions.get(name, 0) + int(count)
        elif kind == "call":
            count, _, name = rest.partition(" ")
            calls.append((name, int(count)))
        elif kind == "class":
            name, _, count = rest.partition(" ")
            classes[name] = int(count)
    ordered = dict(sorted(functions.items(), key=lambda item: -item[1]))
    return Counts(tuple(regions), tuple(calls), ordered, classes)
