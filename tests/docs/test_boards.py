"""What docs/boards.md tells to type works: on this machine, which is the board, the tracker and the client."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.boards import Cluster
from tests.tvmcompress.cli.running import run
from tvmcompress.passes._tvm import FFI_VERSION, TVM_VERSION
from tvmcompress.targets import get_target
from tvmcompress.targets.remote.tracker import Tracker
from tvmcompress.targets.trials.builders import KEY

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "boards.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.strip().splitlines()]
OURS = [line for line in LINES if line.startswith("tvmcompress") and "/dev/tty" not in line]


def only(words: str) -> str:
    """The line with these words."""
    (line,) = (line for line in LINES if words in line)
    return line


def test_the_commands(cluster: Cluster, board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, example in (("model.onnx", "digits.onnx"), ("calib.npz", "digits_calib.npz"), ("data.npz", "digits_test.npz")):
        (tmp_path / name).symlink_to(ROOT / "examples" / example)
    monkeypatch.chdir(tmp_path)
    assert len(OURS) >= 5
    cluster.start(KEY)
    for line in OURS:
        here = line.replace("192.168.1.10:9190", cluster.address).replace("-t raspberry-pi-4", "-t x86")
        words = shlex.split(here)[1:]
        words += ["--key", board] if "--rpc" in words and words[0] != "devices" else []
        words += ["--limit", "20"] if "data.npz" in words else []
        words = ["2" if word == "200" else word for word in words]
        ran = run(*words)
        assert ran.code == 0, (line, ran.err)


def test_the_server(cluster: Cluster) -> None:
    words = shlex.split(only("PopenRPCServerState"))
    assert words[:2] == ["tvm/bin/python", "-c"]
    host, port = cluster.address.split(":")
    program = words[2].replace("'192.168.1.10', 9190", f"'{host}', {port}").replace("0.0.0.0", host)
    program = program.replace("raspberry-pi-4", "typed")
    environment = {**os.environ, "TVM_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not Tracker(cluster.address).servers("typed"):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        server.kill()
        server.wait()


def test_the_tracker_takes_these_options() -> None:
    words = shlex.split(only("rpc_tracker"))
    known = Path(__import__("tvm").__file__).parent / "exec" / "rpc_tracker.py"
    assert all(f'"{word}"' in known.read_text() for word in words if word.startswith("--"))


def test_versions_and_targets() -> None:
    assert f"apache-tvm=={TVM_VERSION} apache-tvm-ffi=={FFI_VERSION}" in only("pip install")
    for name in ("raspberry-pi-4", "nucleo-f446re", "cortex-a7", "cortex-a9", "beaglebone-black"):
        assert name in PAGE
        assert get_target(name).description.name == name
