"""The page on the architecture names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:passes|targets|tvmcompress|tests|scripts|docs)/[\w./-]*)`", PAGE)))


@pytest.mark.parametrize("name", NAMED)
def test_what_it_names_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("floor", ["passes", "tvmcompress"])
def test_every_room_is_named(floor: str) -> None:
    rooms = {path.parent.name for path in (ROOT / floor).glob("*/__init__.py")}
    assert {f"{floor}/{room}/" for room in rooms} <= set(NAMED)


def test_the_halls_are_small() -> None:
    assert {path.name for path in (ROOT / "passes").glob("*.py")} == {"__init__.py", "_tvm.py", "errors.py", "pipeline.py"}
    assert len([path for path in (ROOT / "tvmcompress").iterdir() if path.is_file()]) <= 8
