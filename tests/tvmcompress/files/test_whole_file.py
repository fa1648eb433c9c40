"""Files are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tvmcompress.errors import UserError
from tvmcompress.files.whole_file import whole_file


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    place = tmp_path / "record.json"
    place.write_text("old")
    with whole_file(place) as partial:
        partial.write_text("new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_the_old_one_survives_a_failure(tmp_path: Path) -> None:
    place = tmp_path / "record.json"
    place.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(place) as partial:
        partial.write_text(str(1 // 0))
    assert place.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_links_are_followed_and_devices_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with whole_file(tmp_path / "link") as partial:
        partial.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    with whole_file("/dev/null") as partial:
        partial.write_text("anything")
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("place", ["folder", "file/below", "none/below", "/proc/none"])
def test_what_cannot_be_written_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"{place} cannot be written"), whole_file(tmp_path / place) as partial:
        partial.write_text("x")
    assert (tmp_path / "file").read_text() == "mine"
