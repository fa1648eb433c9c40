"""The script that takes the pictures of pages."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.markdown import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import make_screenshots

    return make_screenshots


def test_a_page_is_taken(script: ModuleType, tmp_path: Path) -> None:
    if not any(shutil.which(name) for name in script.BROWSERS):
        pytest.skip("needs Chromium")
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text("<h1>A page</h1>")
    script.take(page, picture)
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (script.WIDTH, script.HEIGHT)


def test_what_is_missing_is_said_in_a_sentence(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="need Chromium: sudo apt-get install chromium"):
        script.take(tmp_path / "page.html", tmp_path / "page.png")


def test_pictures_are_small() -> None:
    for path in (ROOT / "docs" / "pictures").iterdir():
        assert path.stat().st_size < 150_000, path
