"""Tuning by the cycles of a microcontroller at a serial port; QEMU stands for the board, SysTick for its cycle counter."""

# mypy: ignore-errors

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import tty
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from tests.targets.micro.kernels.test_decided import convolution
from tests.targets.micro.test_trial_board import BOARD, MACHINE, SOURCE
from tests.tvmcompress.cli.running import refused
from tests.tvmcompress.cli.running import run as command
from tvmcompress.errors import UserError
from tvmcompress.model import Model
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.records import unit_of, workload_of
from tvmcompress.targets.micro.serial import StreamPort
from tvmcompress.targets.micro.trial_board import CortexMBoard
from tvmcompress.targets.tuning_log import LOGS_VARIABLE, RECORDS, TuningLog
from tvmcompress.tuning.kernels import KernelBench
from tvmcompress.tuning.logs import entries
from tvmcompress.tuning.tune import tune

pytestmark = pytest.mark.skipif(bool(get_target(BOARD).missing_tools()), reason="needs the Cortex-M tool chain")

LISTENING = SOURCE.replace("UART(8) = 1", "UART(8) = 3") + "int uart_getc(void) { return UART(4) & 2 ? UART(0) & 255 : -1; }\n"
FLASH = """
import os, subprocess, sys
try:
    os.kill(int(open({running!r}).read()), 9)
except FileNotFoundError:
    pass
streams = {{"stdin": {line}, "stdout": {line}, "stderr": subprocess.DEVNULL}}
board = subprocess.Popen([*{machine}, "-kernel", sys.argv[1]], **streams)
print(board.pid, file=open({running!r}, "w"))
"""


def network():
    """One layer: every build and every program of candidates takes a second or more."""
    return convolution(0, (12, 8, 4), 16, {"output_zero_point": -128})


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(KernelBench, "batch", 8)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "mine.c").write_text(LISTENING)
    return tmp_path / "mine.c"


@contextmanager
def start(program):
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*MACHINE, "-kernel", program], **streams)
    try:
        yield StreamPort(process.stdout.fileno(), process.stdin.fileno())
    finally:
        process.kill()
        process.communicate()


def test_cycles_decide_for_the_board_and_for_no_other(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(LOGS_VARIABLE, str(tmp_path / "logs"))
    mod, target = network(), get_target(BOARD)
    result = tune(mod, BOARD, 8, board=CortexMBoard(target.description, source, start))
    assert (result.unit, result.trials, result.model_problem) == ("cycles", 8, None)
    assert result.directory == str(tmp_path / "logs" / BOARD)
    assert {status for task in result.tasks for status in task.outcomes} == {"ok"}
    log = TuningLog(result.directory)
    assert all(unit_of(workload_of(mod)) == "cycles" for mod in log.modules())
    assert {entry.unit for entry in entries(log)} == {"cycles"}
    # A plain build takes what the board found; what it was measured at is a build's own program on the board.
    taken = target.build(mod, tmp_path / "taken")
    with CortexMBoard(target.description, source, start).running(taken) as on_board:
        x = np.random.default_rng(1).integers(-128, 128, (1, 12, 8, 4)).astype("int8")
        np.testing.assert_array_equal(on_board.run([x])[0], taken.run([x])[0])
        cycles = on_board.measure([x]).latency.median_ms * on_board.clock_hz / 1e3
    assert cycles == pytest.approx(result.model_best, rel=2e-3)
    assert result.model_best <= 1.002 * result.model_default
    made = {(BOARD, "tuned"): kernels(tmp_path / "taken")}
    others = ((BOARD, "untuned", False), ("cortex-m4", "tuned", log.directory), ("cortex-m4", "untuned", False))
    for name, how, choice in others:
        get_target(name).build(mod, tmp_path / name / how, tuning_log=choice)
        made[name, how] = kernels(tmp_path / name / how)
    assert made["cortex-m4", "tuned"] == made["cortex-m4", "untuned"]
    assert made[BOARD, "tuned"] != made[BOARD, "untuned"]


def kernels(folder):
    return [path.read_bytes() for path in sorted(folder.glob("model_kernels*.o"))]


def test_a_board_that_is_unplugged_keeps_what_was_measured(source, tmp_path, monkeypatch) -> None:
    flashed = []

    @contextmanager
    def once(program):
        flashed.append(program)
        with start(program) as port:
            if len(flashed) > 1:
                port.read = partial(_gone, port)
            yield port

    board = CortexMBoard(get_target(BOARD).description, source, once)
    with pytest.raises(UserError, match="line is gone"):
        tune(network(), BOARD, 4, tmp_path / "log", board=board)
    before = len((tmp_path / "log" / RECORDS).read_text().splitlines())
    assert before > 0
    board = CortexMBoard(get_target(BOARD).description, source, start)
    result = tune(network(), BOARD, 2, tmp_path / "log", board=board)
    assert len((tmp_path / "log" / RECORDS).read_text().splitlines()) == before + result.trials


def _gone(port, size):
    raise OSError("Input/output error")


def test_the_command_and_a_board_that_takes_no_commands(source, tmp_path, monkeypatch) -> None:
    """Without uart_getc layers are measured, and the model is not."""
    pytest.importorskip("serial")
    monkeypatch.setattr("tvmcompress.targets.micro.serial._ATTEMPTS", 1)
    source.write_text(SOURCE)
    main, end = pty.openpty()
    tty.setraw(end)
    running, script = tmp_path / "running", tmp_path / "flash.py"
    script.write_text(FLASH.format(machine=MACHINE, line=main, running=str(running)))
    monkeypatch.setattr(subprocess, "Popen", partial(subprocess.Popen, pass_fds=(main,)))
    model = tmp_path / "net.tvmc"
    Model.from_module(network()).save(model)
    options = ["--port", os.ttyname(end), "--flash-command", f"{sys.executable} {script} {{elf}}", "--board-source", source]
    try:
        ran = command("tune", model, "-t", BOARD, "--trials", 4, "--log", tmp_path / "log", *options)
    finally:
        os.kill(int(running.read_text()), signal.SIGKILL)
        os.close(main)
        os.close(end)
    assert ran.code == 0, ran.err
    assert "4 candidates" in ran.out
    assert "The whole model was not measured: the board at mps2-an386 does not answer INFO" in " ".join(ran.out.split())


def test_options_that_do_not_go_together(source, tmp_path) -> None:
    model = tmp_path / "net.tvmc"
    Model.from_module(network()).save(model)
    port, flash, mine = ("--port", "/dev/none"), ("--flash-command", "f {elf}"), ("--board-source", source)
    for options, sentence in (
        ((*port, *flash, *mine, "-t", "cortex-m4"), "of one microcontroller's board; name it, as in -t nucleo-f446re"),
        ((*port, *flash, *mine, "-t", "x86"), "of one microcontroller's board"),
        ((*port, *flash, *mine, "-t", BOARD, "-t", "nucleo-f446re"), "of one microcontroller's board"),
        ((*port, *flash, "-t", BOARD), "say how with --board-source"),
        ((*port, *mine, "-t", BOARD), "say how with --flash-command"),
        ((*flash, "-t", BOARD), "--flash-command is about a board at a serial port; name it with --port"),
        ((*port, *flash, "--board-source", tmp_path / "none.c", "-t", BOARD), "there is no file"),
        ((*port, "--flash-command", "f", *mine, "-t", BOARD), "does not say which program to flash"),
    ):
        assert sentence in refused("tune", model, *options)
    with pytest.raises(UserError, match="give the board as target"):
        tune(network(), "cortex-m4", 1, tmp_path, board=CortexMBoard(get_target(BOARD).description, source, start))
