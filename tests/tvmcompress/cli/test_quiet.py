"""Nothing but what the commands say reaches the terminal, whatever that can show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "tvmcompress.cli.main"]
NOISE = """
import os, sys, warnings, logging
from tvmcompress.cli import main
import tvmcompress.report.inspection as room
inspection = room.inspection
def noisy(*args):
    os.write(1, b"native code on standard output")
    os.write(2, b"native code on standard error")
    os.system("echo a program on both; echo a program on both >&2")
    warnings.warn("a package warns")
    logging.getLogger("other").warning("a package logs")
    return inspection(*args)
room.inspection = noisy
sys.argv = ["tvmcompress", "inspect", sys.argv[1], "--json"]
main.main()
"""


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, env={**os.environ, **environment}, check=False
    )


def test_noise_of_others(digits: Path) -> None:
    command = [sys.executable, "-c", NOISE, str(digits / "digits.onnx")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["macs"] == 1_310_848
    verbose = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TVMCOMPRESS_VERBOSE": "1"})
    for words in ("native code on standard error", "a program on both", "a package warns", "a package logs"):
        assert words in verbose.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"COLUMNS": "0"},
        {"COLUMNS": "1"},
        {"COLUMNS": "40"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "0"},
    ],
    ids=["ascii", "no-columns", "one-column", "forty-columns", "C"],
)
def test_any_terminal(environment: dict[str, str], digits: Path, tmp_path: Path) -> None:
    model = tmp_path / ("digits_" + "Q" * 150 + ".onnx")
    model.write_bytes((digits / "digits.onnx").read_bytes())
    done = process("inspect", model, "--groups", **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"Q") >= 150
    if "ascii" in environment.values():
        assert done.stdout.isascii()
        assert b"==== 45.0 %" in done.stdout


@pytest.mark.parametrize("arguments", [("presets",), ("--help",), ("presets", "--json")])
def test_a_closed_pipe_is_no_error(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *arguments], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full_is_one() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "presets"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "Error: the output: No space left on device\n"


def test_presets_as_json() -> None:
    from tests.tvmcompress.cli.running import run

    listed = {entry["name"]: entry["values"] for entry in run("presets", "--json").json}
    assert listed["small"]["precision"] == "int4"
    assert run("presets", "small", "--json").json["quantize"]["group_size"] == 32
