"""Every bad input in `bad_inputs.txt` is refused with its exit code and one sentence, and leaves nothing behind.

A line there is `exit code | command | words of the sentence`; a name in braces is a file that `write_bad_files` makes.
Commands that write get an output folder besides.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.tvmcompress.cli.bad_files import write_bad_files
from tests.tvmcompress.cli.running import run
from tvmcompress import Model

LINES = [line.split(" | ") for line in (Path(__file__).parent / "bad_inputs.txt").read_text("utf-8").splitlines()]
WRITERS = {"compress", "sensitivity", "package"}


@pytest.fixture(scope="module")
def files(digits: Path, digits_model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    digits_model.save(folder / "good.tvmc")
    (folder / "files").mkdir()
    return write_bad_files(folder / "files", digits, folder / "good.tvmc")


def test_there_are_many() -> None:
    assert len(LINES) > 300
    assert len({command for _, command, _ in LINES}) == len(LINES)


@pytest.mark.parametrize(("code", "command", "words"), LINES, ids=[command for _, command, _ in LINES])
def test_refused(
    code: str, command: str, words: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is wrong is said on machines without cross compilers, too.
    monkeypatch.setattr("tvmcompress.targets.base.Target.require_tools", lambda self: None)
    monkeypatch.chdir(tmp_path)
    arguments = []
    for part in shlex.split(command):
        for name, path in files.items():
            part = part.replace(f"{{{name}}}", str(path))
        arguments.append(part)
    if arguments[:1] and arguments[0] in WRITERS and "-o" not in arguments:
        arguments += ["-o", "made/out"]
    ran = run(*arguments)
    assert ran.code == int(code), ran.err
    if "--json" in arguments:
        assert ran.json["verdict"]["exit_code"] == int(code)
    else:
        assert ran.out == ""
    (line,) = ran.err.strip().splitlines()
    assert line.startswith("Error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == []

