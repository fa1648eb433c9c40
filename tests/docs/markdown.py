"""Commands and code in pages.

A block that is marked by a line `<!-- run -->` before it is run by a test; words behind a colon say what it needs: `shared` the
measuring models, `torch`, or targets whose tools must be there. All other commands are parsed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from tests.conftest import shared_folder
from tvmcompress.cli.main import app
from tvmcompress.targets.registry import get_target

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"), ROOT / "benchmarks" / "README.md"]
)
_FENCE = re.compile(r"(?:^<!-- run(?:: ([^>]*?))? -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"^<!-- run", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code: where, in which language, and what it needs to run; None where it is not run."""

    page: str
    number: int
    language: str
    text: str
    needs: tuple[str, ...] | None

    @property
    def commands(self) -> list[str]:
        """Its lines, those that go on put together, without comments."""
        lines = re.sub(r" *\\\n *", " ", self.text).splitlines()
        return [line for line in (re.sub(r"(^|\s)#.*$", "", line).strip() for line in lines) if line]

    def skip_unless_it_can_run(self) -> None:
        """Skip the test where something that it needs is missing."""
        for need in self.needs or ():
            if need == "shared":
                if shared_folder() is None:
                    pytest.skip("needs the measuring models")
            elif need == "torch":
                pytest.importorskip("torch")
            elif get_target(need).missing_tools():
                pytest.skip(f"the tools of {need} are missing")


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page."""
    text = page.read_text()
    name = str(page.relative_to(ROOT))
    found = list(_FENCE.finditer(text))
    marked = [match for match in found if match[0].startswith("<!--")]
    assert len(marked) == len(_MARK.findall(text)), f"{name}: a mark without a block behind it"
    for number, match in enumerate(found):
        needs = tuple((match[1] or "").split()) if match in marked else None
        yield Block(name, number, match[2], match[3], needs)


def all_blocks() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]


def parse(command: str) -> None:
    """Parse a command as the command line does, without running it.

    Raises:
        Exception: Of the parser: an option or an argument is not one.
    """
    words = shlex.split(command)
    assert words.pop(0) == "tvmcompress"
    found = typer.main.get_command(app)
    while hasattr(found, "commands"):
        name = words.pop(0)
        if name.startswith("-"):
            return  # an option of the program itself
        assert name in found.commands, f"there is no command {name}"
        found = found.commands[name]
    found.make_context(found.name, words)


