"""Only what we wrote is replaced, all of it or nothing, whatever happens on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.errors import UserError
from tvmcompress.files.manifest import MANIFEST, WrittenFile
from tvmcompress.files.output_folder import output_folder
from tvmcompress.files.staging import staging_folder


def _write(place: Path, **files: str) -> None:
    with output_folder(place) as folder:
        for name, text in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def _read(place: Path) -> dict[str, str]:
    files = [path for path in place.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {str(path.relative_to(place)): path.read_text() for path in files}


def test_the_manifest_lists_sizes_and_checksums(tmp_path: Path) -> None:
    _write(tmp_path / "deep" / "out", a="one", x86__lib="two")
    listed = json.loads((tmp_path / "deep" / "out" / MANIFEST).read_text())
    assert set(listed) == {"a", "x86/lib"}
    assert WrittenFile(**listed["x86/lib"]).is_at(tmp_path / "deep" / "out" / "x86" / "lib")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_what_an_earlier_run_left_is_replaced(tmp_path: Path) -> None:
    _write(tmp_path / "out", a="one", x86__lib="two", x86__more="three")
    number = (tmp_path / "out").stat().st_ino
    _write(tmp_path / "out", b="four", x86__lib="five")
    assert _read(tmp_path / "out") == {"b": "four", "x86/lib": "five"}
    # It may be somebody's working directory, or a mounted disk.
    assert (tmp_path / "out").stat().st_ino == number
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def _git(out: Path) -> None:
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref")


def _edited(out: Path) -> None:
    (out / "a").write_text("mine")


def _same_size(out: Path) -> None:
    (out / "a").write_text("eno")


def _link(out: Path) -> None:
    (out / "a").rename(out.parent / "elsewhere")
    (out / "a").symlink_to(out.parent / "elsewhere")


def _no_list(out: Path) -> None:
    (out / MANIFEST).unlink()


def _damaged_list(out: Path) -> None:
    (out / MANIFEST).write_text("{")


def _report_only(out: Path) -> None:
    for path in out.iterdir():
        path.unlink()
    (out / "report.json").write_text("{}")


@pytest.mark.parametrize(
    "change", [_git, _edited, _same_size, _link, _no_list, _damaged_list, _report_only, lambda out: (out / "empty").mkdir()]
)
def test_anything_else_stops_the_run_before_it_starts(change: Callable[[Path], None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, a="one")
    change(out)
    before = sorted(out.rglob("*")), _read(out)
    with pytest.raises(UserError, match="other files"), output_folder(out):
        pytest.fail("started")
    assert (sorted(out.rglob("*")), _read(out)) == before


def test_a_file_that_comes_while_we_work_stops_the_run_at_its_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, a="one")
    with pytest.raises(UserError, match=r"other files .*\(notes\)"), output_folder(out):
        (out / "notes").write_text("mine")
    assert _read(out) == {"a": "one", "notes": "mine"}


def test_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _write(Path("."), a="one")
    _write(Path("."), b="two")
    assert _read(Path(".")) == {"b": "two"}
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"thesis.tex"):
        _write(Path("."), c="three")
    assert _read(tmp_path) == {"b": "two", "thesis.tex": "mine"}


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(there: bool, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    for text in ("one", "two"):
        _write(tmp_path / "out", a=text)
        assert (tmp_path / "out").is_symlink()
        assert _read(tmp_path / "disk" / "real") == {"a": text}


def test_nothing_stays_of_a_run_that_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "new" / "deeper" / "out") as folder:
        (folder / "a").write_text(str(1 // 0))
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(old=st.sets(st.sampled_from("abcd"), min_size=1), new=st.sets(st.sampled_from("abcdef")), at=st.integers(0, 12))
def test_an_exchange_that_fails_changes_nothing(
    old: set[str], new: set[str], at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("exchange") / "out"
    _write(out, **dict.fromkeys(old, "old"))
    rename, count = Path.rename, 0

    def failing(self: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == at + 1:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        try:
            _write(out, **dict.fromkeys(new, "new"))
            expected = dict.fromkeys(new, "new")
        except UserError:
            expected = dict.fromkeys(old, "old")
    assert _read(out) == expected


@settings(max_examples=40, deadline=None)
@given(old=st.sets(st.sampled_from("abcd"), min_size=1), new=st.sets(st.sampled_from("abcdef")), at=st.integers(0, 12))
def test_an_exchange_in_which_a_run_is_killed_is_ended_by_the_next(
    old: set[str], new: set[str], at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("killed") / "out"
    _write(out, **dict.fromkeys(old, "old"))
    child = os.fork()
    if child == 0:
        rename, count = Path.rename, 0

        def killing(self: Path, target: Path) -> Path:
            nonlocal count
            count += 1
            if count == at + 1:
                os._exit(9)
            return rename(self, target)

        Path.rename = killing  # type: ignore[method-assign, assignment]
        _write(out, **dict.fromkeys(new, "new"))
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ZeroDivisionError), output_folder(out):
        raise ZeroDivisionError
    assert _read(out) in (dict.fromkeys(old, "old"), dict.fromkeys(new, "new"))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


_KILLED = """
import os, sys
from pathlib import Path
from tvmcompress.files.output_folder import output_folder
with output_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print(folder.parent, flush=True)
    sys.stdin.read()
    os._exit(9)
"""


@pytest.mark.parametrize("there", [True, False])
def test_leftovers_are_known_by_their_lock(there: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if there:
        _write(out, a="one")
    arguments = [sys.executable, "-c", _KILLED, out]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        partial = Path(running.stdout.readline().strip())
        assert ".partial-" in partial.name
        # A file of somebody's with a name of that kind is none of ours.
        (partial.parent / f"{partial.name[:-8]}manual").write_text("mine")
        if not there:
            with output_folder(out):
                assert (partial / "content" / "half").exists(), "what a running process works on is left alone"
    assert running.returncode == 9
    if there:
        (partial.parent / f"{partial.name[:-8]}manual").unlink()
    _write(out, b="two")
    assert not partial.exists()
    assert _read(out) == {"b": "two"}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/out"), Path("/proc/self/deep/out")):
        with pytest.raises(UserError, match=r"is a file|cannot be written"), output_folder(place):
            pytest.fail("started")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def disk(tmp_path: Path) -> object:
    """A disk of 256 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk(there: bool, disk: Path) -> None:
    if there:
        _write(disk / "out", a="one")
    before = sorted(disk.rglob("*"))
    with pytest.raises(UserError, match=f"the disk of {disk}.* is full"), output_folder(disk / "out") as folder:
        (folder / "big").write_bytes(bytes(1 << 20))
    assert sorted(disk.rglob("*")) == before


def test_a_full_disk_of_temporary_files(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    with pytest.raises(UserError, match=f"the disk of {disk} is full.*TMPDIR"), output_folder(tmp_path / "out"):
        (disk / "object").write_bytes(bytes(1 << 20))
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_a_disk_that_is_read_only(disk: Path) -> None:
    _write(disk / "out", a="one")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for place in (disk / "out", disk / "new", disk / "deep" / "new"):
        with pytest.raises(UserError, match=r"cannot be written \(Read-only"), output_folder(place):
            pytest.fail("started")
    assert _read(disk) == {"out/a": "one"}


def test_a_staging_folder_is_gone_at_the_end(tmp_path: Path) -> None:
    with staging_folder(tmp_path, ".work-") as first, staging_folder(tmp_path, ".work-") as second:
        assert first != second
        assert first.exists()
    assert list(tmp_path.iterdir()) == []
