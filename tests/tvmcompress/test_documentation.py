"""The public names are documented, and the pages made from the code are those of the code."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

import tvmcompress
from tvmcompress.report.schemas import SCHEMAS

ROOT = Path(__file__).parents[2]
PUBLIC = [name for name in tvmcompress.__all__ if not name.startswith("__")]


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    """The script that makes the pages."""
    pytest.importorskip("torch", reason="whether the bridge to PyTorch has an operator, only PyTorch can say")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        return importlib.import_module("make_docs")


def arguments(thing: object) -> set[str]:
    """What somebody who uses a public name passes to it or reads from it."""
    if isinstance(thing, type):
        if issubclass(thing, BaseModel):
            return set(thing.model_fields)
        if dataclasses.is_dataclass(thing):
            return {field.name for field in dataclasses.fields(thing) if not field.name.startswith("_")}
        return set() if issubclass(thing, Exception) else set(inspect.signature(thing).parameters)
    assert callable(thing)
    return set(inspect.signature(thing).parameters)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_its_arguments_are(name: str) -> None:
    thing = getattr(tvmcompress, name)
    text = inspect.getdoc(thing) or ""
    assert text.partition("\n")[0].endswith((".", ":", ","))
    documented = {word.strip() for line in re.findall(r"^ {4}([\w, *]+):", text, re.MULTILINE) for word in line.split(",")}
    assert arguments(thing) - {word.lstrip("*") for word in documented} == set()


MADE = ["operators.md", "reference.md", "command-line.md", "python.md", *(f"schemas/{name}.schema.json" for name in SCHEMAS)]


@pytest.mark.parametrize("page", MADE)
def test_the_pages_made_from_the_code_are_current(make_docs: ModuleType, page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == make_docs.PAGES[page](), "run: python scripts/make_docs.py"


def test_the_reference_lists_every_public_name(make_docs: ModuleType) -> None:
    listed = re.findall(r"^\| `(\w+)` \| (.+) \|$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} >= set(PUBLIC)
    assert all(len(summary) > 10 for name, summary in listed if name in PUBLIC)
