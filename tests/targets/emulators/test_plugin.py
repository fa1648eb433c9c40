"""The counting plugin, compiled on first use."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tvmcompress.targets.emulators.plugin import plugin_path


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_several_may_compile_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ThreadPoolExecutor(3) as executor:
        (found,) = set(executor.map(lambda _: plugin_path(), range(3)))
    assert found.stat().st_size > 1000
    assert [path.name for path in (tmp_path / "tvmcompress").iterdir()] == [found.name]
