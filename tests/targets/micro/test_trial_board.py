"""Candidates on a board that answers over its UART: QEMU's, with SysTick in place of the cycle counter that QEMU lacks."""

# mypy: ignore-errors

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
import tty
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from tests.targets.trials.test_image import SIZE, X, endless, far_away, kernel, reversed_in_place, trial
from tvmcompress.passes import UserError
from tvmcompress.passes.errors import ToolError
from tvmcompress.targets import get_target
from tvmcompress.targets.micro import trial_board
from tvmcompress.targets.micro.serial import StreamPort
from tvmcompress.targets.micro.trial_board import CortexMBoard, FlashedBoard
from tvmcompress.targets.trials import image

BOARD = "mps2-an386"
pytestmark = pytest.mark.skipif(bool(get_target(BOARD).missing_tools()), reason="needs the Cortex-M tool chain")

# UART 0 of MPS2 (Arm, "Cortex-M System Design Kit", APB UART); SysTick counts down (Arm DDI 0403, B3.3).
SOURCE = """
#include <stdint.h>
#define UART(offset) (*(volatile uint32_t *)(0x40004000u + (offset)))
#define SYSTICK(offset) (*(volatile uint32_t *)(0xE000E010u + (offset)))
void uart_init(void) { UART(16) = 16; UART(8) = 1; }
void uart_putc(uint8_t b) { while (UART(4) & 1) {} UART(0) = b; }
void serial_cycles_start(void) { SYSTICK(4) = 0xFFFFFF; SYSTICK(8) = 0; SYSTICK(0) = 5; }
uint32_t serial_cycles(void) { return 0xFFFFFF - SYSTICK(8); }
"""

# Virtual time goes by executed instructions: it is the same again and again.
MACHINE = ["qemu-system-arm", "-M", BOARD, "-nographic", "-monitor", "none", "-serial", "stdio", "-icount", "shift=5"]
FLASH = """
import subprocess, sys
elf, binary = sys.argv[1:]
assert len(open(binary, "rb").read()) > 1000
streams = {{"stdin": subprocess.DEVNULL, "stdout": {line}, "stderr": subprocess.DEVNULL}}
board = subprocess.Popen([*{machine}, "-kernel", elf], **streams)
print(board.pid, elf, binary, file=open({started!r}, "w"))
"""


class Line(StreamPort):
    """A line that damages some bytes; where QEMU gives up, as it does of a locked core, it is silent as a board's."""

    def __init__(self, reading, every) -> None:
        super().__init__(reading, -1)
        self.every, self.count = every, 0

    def read(self, size):
        try:
            data = bytearray(super().read(size))
        except OSError:
            time.sleep(0.05)
            return b""
        for at in range(len(data)):
            self.count += 1
            if self.every and self.count % self.every == 0:
                data[at] ^= 0x04
        return bytes(data)


def starter(every=0):
    @contextmanager
    def start(program):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*MACHINE, "-kernel", program], **streams)
        try:
            yield Line(process.stdout.fileno(), every)
        finally:
            process.kill()
            process.communicate()

    return start


@pytest.fixture
def source(tmp_path):
    (tmp_path / "mine.c").write_text(SOURCE)
    return tmp_path / "mine.c"


@pytest.fixture
def board(source):
    return CortexMBoard(get_target(BOARD).description, source, starter())


def measure(made, place):
    return image.measure([lambda one=one: one for one in made], place)


def test_planted_candidates_are_rejected_and_the_others_counted(board, monkeypatch) -> None:
    monkeypatch.setattr(image, "_LIMIT", 1.0)
    planted = {
        "right": (trial(kernel()), "ok"),
        "another value": (trial(kernel(step=2)), "wrong"),
        "beyond its end": (trial(kernel(reach=SIZE + 8)), "wrong"),
        "endless": (trial(endless), "timeout"),
        # A board without a debugger stops in its fault handler: it falls silent.
        "far away": (trial(far_away(0x60000000)), "timeout"),
        "right in place": (trial(kernel(), inplace=0), "ok"),
        "wrong in place": (trial(reversed_in_place, (X + 1)[::-1].copy(), inplace=0), "wrong"),
    }
    outcomes = dict(zip(planted, measure([made for made, _ in planted.values()], board)))
    assert {name: outcome.status for name, outcome in outcomes.items()} == {n: status for n, (_, status) in planted.items()}
    assert "fell silent" in outcomes["endless"].reason
    assert outcomes["right"].flash_bytes > 4


def test_cycles_are_those_of_the_board(board) -> None:
    twice = trial(kernel())
    longer = np.concatenate([X + 1])
    first, second = measure([twice, trial(kernel(), longer)], board)
    (counted,) = measure([twice], get_target(BOARD).emulator())
    # 25 MHz, and 32 ns for each instruction.
    assert first.cost == pytest.approx(0.8 * counted.cost, rel=0.05)
    assert abs(first.cost - second.cost) <= 4


def test_damaged_lines_are_said_again(source) -> None:
    place = CortexMBoard(get_target(BOARD).description, source, starter(every=41))
    outcomes = measure([trial(kernel())] * 5 + [trial(kernel(step=2))], place)
    assert [outcome.status for outcome in outcomes] == ["ok"] * 5 + ["wrong"]


def test_a_line_that_damages_a_result_each_time(source, monkeypatch) -> None:
    class Damaging(Line):
        def read(self, size):
            return super().read(size).replace(b"R", b"r")

    @contextmanager
    def start(program):
        with starter()(program) as line:
            yield Damaging(line._reading, 0)

    monkeypatch.setattr(trial_board, "_ROUNDS", 3)
    with pytest.raises(UserError, match="damages 1 of 1 results again and again"):
        measure([trial(kernel())], CortexMBoard(get_target(BOARD).description, source, start))


def test_a_board_that_says_nothing(source, monkeypatch) -> None:
    monkeypatch.setattr(trial_board, "_BOOT", 0.5)
    source.write_text("void nothing(void) {}\n")
    place = CortexMBoard(get_target(BOARD).description, source, starter())
    with pytest.raises(ToolError, match="says nothing .* after it was flashed"):
        measure([trial(kernel())], place)


def test_a_board_that_is_unplugged(board, monkeypatch) -> None:
    @contextmanager
    def gone(program):
        process = subprocess.Popen(["true"], stdout=subprocess.PIPE)
        process.wait()
        yield StreamPort(process.stdout.fileno(), -1)
        process.stdout.close()

    monkeypatch.setattr(board, "_start", gone)
    with pytest.raises(UserError, match="line is gone"):
        measure([trial(kernel())], board)


def test_what_cannot_be_flashed(tmp_path) -> None:
    with pytest.raises(UserError, match=r"does not say which program to flash; write \{elf\} or \{bin\}"):
        FlashedBoard("/dev/null", "st-flash write")
    missing = CortexMBoard(get_target(BOARD).description, tmp_path / "none.c", starter())
    with pytest.raises(UserError, match=r"none\.c cannot be read"):
        measure([trial(kernel())], missing)


def test_flashing_runs_the_command_with_the_port_open(source, tmp_path, monkeypatch) -> None:
    """The flashed program is an image of the candidates; a QEMU behind a pseudo-terminal stands for the board."""
    pytest.importorskip("serial")
    main, end = pty.openpty()
    tty.setraw(end)
    started, script = tmp_path / "started", tmp_path / "flash.py"
    script.write_text(FLASH.format(machine=MACHINE, line=main, started=str(started)))
    monkeypatch.setattr(subprocess, "Popen", partial(subprocess.Popen, pass_fds=(main,)))
    board = FlashedBoard(os.ttyname(end), f"{sys.executable} {script} {{elf}} {{bin}}")
    try:
        (outcome,) = measure([trial(kernel())], CortexMBoard(get_target(BOARD).description, source, board))
    finally:
        pid, *paths = started.read_text().split()
        os.kill(int(pid), signal.SIGKILL)
        os.close(main)
        os.close(end)
    assert outcome.status == "ok"
    assert [path.rpartition("/")[2] for path in paths] == ["trials.elf", "trials.bin"]
