"""What we have started ends when we do, in whatever way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tvmcompress.errors import UserError
from tvmcompress.targets.emulators.tools import run

_TOOL = """
import sys
from pathlib import Path
from tvmcompress.targets.emulators.tools import run
run(["sh", "-c", f"echo $$ > {sys.argv[1]}; exec sleep 600"], what="sleeping", timeout=600, lasting=True)
"""
_WORKERS = """
import sys
from pathlib import Path
from tvmcompress.tuning.process import Worker
worker = Worker()
Path(sys.argv[1]).write_text(str(worker._started().pid))
sys.stdin.read()
"""
_OBJECTS = """
import os, sys, time
from pathlib import Path
from tvmcompress.passes._tvm import tvm
from tvmcompress.targets import objects
def compile(*_):
    Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(600)
objects.object_code = compile
tvm.tirx.build = lambda *_, **__: None
from tvm import te
a = te.placeholder((4,), name="a")
f = te.create_prim_func([a, te.compute((4,), lambda i: a[i])]).with_attr("global_symbol", "f")
objects.compile_functions({"f": [f]}, objects.Compiler.for_runtime(tvm.target.Target("llvm")))
"""


def _ended(number: int) -> bool:
    """Whether a process is gone, or only waits for somebody to ask how it went."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("program", [_TOOL, _WORKERS, _OBJECTS], ids=["tool", "worker", "compiler"])
def test_a_child_of_a_killed_process_ends(program: str, tmp_path: Path) -> None:
    place = tmp_path / "number"
    environment = {**os.environ, "TVMCOMPRESS_CACHE": ""}
    # The children have the other end of the pipe too, so that nothing but a signal reaches them.
    with subprocess.Popen([sys.executable, "-c", program, place], stdin=subprocess.PIPE, env=environment) as parent:
        deadline = time.monotonic() + 120
        while not (place.exists() and place.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.02)
        child = int(place.read_text())
        assert child != parent.pid
        assert not _ended(child)
        parent.kill()
    while not _ended(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _ended(child)


def test_what_a_tool_has_started_is_stopped_with_it(tmp_path: Path) -> None:
    place = tmp_path / "number"
    with pytest.raises(UserError, match="stopped after 1 seconds"):
        run(["sh", "-c", f"sleep 600 & echo $! > {place}; wait"], what="waiting", timeout=1)
    child = int(place.read_text())
    deadline = time.monotonic() + 30
    while not _ended(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _ended(child)


def test_the_end_of_the_terminal_is_ignored_where_it_was(tmp_path: Path) -> None:
    """As nohup has it."""
    program = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from tvmcompress.cli.process import _Stopping
with _Stopping() as stopping:
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stopping.stopped
"""
    assert signal.SIGHUP
    subprocess.run([sys.executable, "-c", program], check=True)
