"""The serial line, both sides: the generated program compiled for this machine and for the emulated board, and the host."""

# mypy: ignore-errors

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tty

import numpy as np
import pytest

from tests.tvmcompress.cli.running import refused
from tests.tvmcompress.cli.running import run as command
from tvmcompress.passes import MissingToolError, UserError
from tvmcompress.targets import get_target
from tvmcompress.targets.micro.board import BoardArtifact
from tvmcompress.targets.micro.serial import CHUNK, SerialLink, StreamPort, frame, open_port, unframe

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")

# A board whose serial line is standard input and output, with a counter that adds 1000 a reading at 8 MHz.
NATIVE = """
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
int uart_getc(void) { uint8_t b; if (read(0, &b, 1) != 1) exit(0); return b; }
void uart_putc(uint8_t b) { if (write(1, &b, 1) != 1) exit(1); }
void uart_init(void) { if (write(1, "boot v1: ready\\n", 15) != 15) exit(1); }
uint32_t serial_clock_hz(void) { return 8000000; }
uint32_t serial_cycles(void) { static uint32_t count; return count += 1000; }
uint32_t stack_used(void) { return 1234; }
"""
# UART 0 of MPS2 (Arm, "Cortex-M System Design Kit", APB UART); QEMU has no cycle counter.
MPS2 = """
#include <stdint.h>
#define UART(offset) (*(volatile uint32_t *)(0x40004000u + (offset)))
void uart_init(void) { UART(16) = 16; UART(8) = 3; }
int uart_getc(void) { return UART(4) & 2 ? (int)(UART(0) & 255) : -1; }
void uart_putc(uint8_t b) { while (UART(4) & 1) {} UART(0) = b; }
"""


@pytest.fixture(scope="module")
def portable(integer_net, tmp_path_factory):
    return get_target("cortex-m4").build(integer_net, tmp_path_factory.mktemp("serial") / "out", emit="c", prefix="net")


@pytest.fixture(scope="module")
def native(portable, tmp_path_factory):
    """The generated program for this machine."""
    return _compile_native(portable.path, tmp_path_factory.mktemp("board"))


def _compile_native(folder, place):
    (place / "board.c").write_text(NATIVE)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I", folder]
    subprocess.run(["cc", *strict, "-c", folder / "firmware" / "serial_main.c", "-o", place / "serial_main.o"], check=True)
    sources = [*folder.glob("net*.c"), place / "serial_main.o", place / "board.c"]
    flags = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-O1", "-I", folder]
    subprocess.run(["cc", *flags, *sources, "-lm", "-o", place / "board"], check=True)
    return place / "board"


class Board:
    """A running board and the port that leads to it."""

    def __init__(self, *program) -> None:
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.port = StreamPort(self.process.stdout.fileno(), self.process.stdin.fileno())

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def board(native):
    with Board(native) as running:
        yield running


class Noisy:
    """Damages or loses every so many bytes in either direction."""

    def __init__(self, port, every: int, lose: bool) -> None:
        self.port, self.every, self.lose, self.count = port, every, lose, 0

    def _pass(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            self.count += 1
            if self.count % self.every:
                out.append(byte)
            elif not self.lose:
                out.append(byte ^ 0x04)
        return bytes(out)

    def read(self, size):
        return self._pass(self.port.read(size))

    def write(self, data):
        return self.port.write(self._pass(data))


class Damaging(Noisy):
    """Damages the name of every command."""

    def __init__(self, port) -> None:
        super().__init__(port, sys.maxsize, False)

    def write(self, data):
        return self.port.write(data[:4] + b"?" + data[5:] if len(data) > 5 else data)


def test_the_checksum_is_the_catalogued_one() -> None:
    assert frame("123456789") == b":123456789*29B1\n"  # CRC-16/IBM-3740
    assert unframe(b"noise:123456789*29B1\r") == "123456789"
    assert unframe(b":123456788*29B1") is None
    assert unframe(b"hello") is None


def test_outputs_and_figures_come_from_the_board(portable, board, samples) -> None:
    artifact = BoardArtifact(portable, SerialLink(board.port, "pipe"))
    x = artifact.inputs[0].quantize(samples)
    assert artifact.inputs[0].nbytes > 2 * CHUNK
    np.testing.assert_array_equal(artifact.run([x])[0], portable.run([x])[0])
    measured = artifact.measure([x], runs=20)
    assert (measured.source, measured.instructions, measured.target) == ("hardware", None, "cortex-m4")
    assert measured.latency.runs >= 20
    assert measured.latency.median_ms == pytest.approx(1000 / 8e6 * 1e3)
    assert measured.stack_bytes == 1234
    assert measured.ram_bytes == measured.arena_bytes + 1234
    assert "1,000 cycles" in measured.notes[0]
    np.testing.assert_array_equal(artifact.run([x[2:]])[0], portable.run([x[2:]])[0])


@pytest.mark.parametrize(("every", "lose"), [(311, False), (467, True)])
def test_a_noisy_line_changes_no_byte(portable, board, samples, every, lose) -> None:
    artifact = BoardArtifact(portable, SerialLink(Noisy(board.port, every, lose), "noisy", timeout=0.1))
    x = artifact.inputs[0].quantize(samples)
    np.testing.assert_array_equal(artifact.run([x])[0], portable.run([x])[0])


def test_a_repeated_command_is_not_executed_twice(board) -> None:
    link = SerialLink(board.port, "pipe")
    link.ask("INFO")
    link.ask("RUN 1")
    first = link.ask("CYCLES")
    for _ in range(2):
        board.port.write(frame(f"{link._sequence + 1:02X} RUN 3"))
    link.ask("RUN 3")
    assert len(link.ask("CYCLES")) == 3
    link.ask("RUN 1")
    # The counter is read twice an inference: five inferences make ten readings, whoever repeats what.
    assert link.ask("CYCLES") == first


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("OUT 0 0 1", "STATE"),
        ("IN 9 0 00", "RANGE"),
        ("IN 0 429 00", "RANGE"),
        ("IN 0 0 0", "RANGE"),
        ("IN 0 4294967295 00", "RANGE"),
        ("IN 0 0 0g", "COMMAND"),
        ("RUN 0", "RANGE"),
        ("RUN 17", "RANGE"),
        ("RUN", "COMMAND"),
        ("HELP", "COMMAND"),
        ("IN 0 0 " + "00" * (CHUNK + 1), "RANGE"),
    ],
)
def test_the_board_refuses_what_cannot_be_done(board, asked, reason) -> None:
    with pytest.raises(UserError, match=rf"refuses {asked.split()[0]}: {reason}"):
        SerialLink(board.port, "pipe").ask(asked)


def test_outputs_need_all_inputs_and_one_run(board) -> None:
    link = SerialLink(board.port, "pipe")
    link.ask("IN 0 0 00")
    link.ask("RUN 1")
    with pytest.raises(UserError, match="STATE"):
        link.ask("OUT 0 0 1")
    for length in (300, 10000):  # longer than any line may be
        board.port.write(b":" + b"0" * length + b"\n")
    assert link.ask("INFO")[1] == "net"


def test_another_model_on_the_board_is_refused(float_net, board, tmp_path) -> None:
    other = get_target("cortex-m4").build(float_net, tmp_path, emit="c", prefix="net")
    with pytest.raises(UserError, match="runs another model"):
        BoardArtifact(other, SerialLink(board.port, "pipe"))


def test_a_line_that_is_silent_wrong_or_gone(portable, native) -> None:
    reading, writing = os.pipe()
    silent = SerialLink(StreamPort(reading, writing), "pipe", timeout=0.05)
    # What is written comes back: an echo, and no reply.
    with pytest.raises(UserError, match="not this protocol"):
        silent.ask("INFO")
    with Board("cat", "/dev/zero") as board, pytest.raises(UserError, match="does not answer INFO; is the program 'serial'"):
        SerialLink(board.port, "pipe", timeout=0.05).ask("INFO")
    with Board(native) as board:
        link = SerialLink(Damaging(board.port), "pipe", timeout=0.1)
        with pytest.raises(UserError, match="damages what goes over it"):
            link.ask("INFO")
        board.process.kill()
        board.process.wait()
        with pytest.raises(UserError, match="the port pipe is gone"):
            SerialLink(board.port, "pipe").ask("INFO")
    os.close(reading)
    os.close(writing)


def test_the_emulated_board_over_its_serial_port(integer_net, samples, tmp_path) -> None:
    built = get_target("cortex-m4").build(integer_net, tmp_path / "out")
    (tmp_path / "board.c").write_text(MPS2)
    firmware = built.path / "firmware"
    flags = ["-mthumb", *built.target.compiler_flags, "-std=gnu11", "-O2", "-Wall", "-Werror", "-I", built.path, "-I", firmware]
    sources = [firmware / "startup.c", firmware / "serial_main.c", tmp_path / "board.c", built.path / "libmodel.a"]
    link = ["-nostartfiles", "-specs=nano.specs", "-T", firmware / "emulator.ld", "-lm", "-o", tmp_path / "serial.elf"]
    subprocess.run(["arm-none-eabi-gcc", *flags, *sources, *link], check=True)
    machine = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "stdio"]
    with Board(*machine, "-kernel", tmp_path / "serial.elf") as board:
        artifact = BoardArtifact(built, SerialLink(board.port, "uart", timeout=5))
        assert artifact.clock_hz == 120_000_000
        x = artifact.inputs[0].quantize(samples)
        np.testing.assert_array_equal(artifact.run([x])[0], built.run([x])[0])
        assert 64 < int(SerialLink(board.port, "uart", timeout=5).ask("STACK")[0]) < 4096
        with pytest.raises(UserError, match="counts no cycles"):
            artifact.measure([x])


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_the_program_compiles_for_every_core(portable, tmp_path, core) -> None:
    """Strictly, and with the cycle counter where the core has one."""
    made = tmp_path / "serial_main.o"
    flags = ["-mthumb", *get_target(core).description.compiler_flags, "-std=c99", "-Os"]
    flags += ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    source = portable.path / "firmware" / "serial_main.c"
    subprocess.run(["arm-none-eabi-gcc", *flags, "-I", portable.path, "-c", source, "-o", made], check=True)
    code = subprocess.run(["arm-none-eabi-objdump", "-s", "-d", made], capture_output=True, text=True, check=True).stdout
    assert ("e0001000" in code or "001000e0" in code) == (core != "cortex-m0plus")


@pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake")
def test_the_project_builds_the_program_with_the_boards_sources(portable, tmp_path) -> None:
    (tmp_path / "board.c").write_text(MPS2)
    configure = ["cmake", "-S", portable.path, "-B", tmp_path / "build", "-DCMAKE_TOOLCHAIN_FILE=arm-none-eabi.cmake"]
    for step in ([*configure, f"-DBOARD_SOURCES={tmp_path / 'board.c'}"], ["cmake", "--build", tmp_path / "build"]):
        done = subprocess.run(step, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    symbols = subprocess.run(["arm-none-eabi-nm", tmp_path / "build" / "serial"], capture_output=True, text=True).stdout
    assert " T uart_getc" in symbols
    assert " W serial_cycles" in symbols


def test_the_command_over_a_terminal(portable, native, samples, tmp_path) -> None:
    pytest.importorskip("serial")
    np.savez(tmp_path / "data.npz", x=samples, y=np.zeros(4, np.int64))
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    process = subprocess.Popen([native], stdin=ours, stdout=ours)
    try:
        port = os.ttyname(theirs)
        ran = command("run", portable.path, tmp_path / "data.npz", "--port", port, "--baud", 9600, "--json")
        assert ran.code == 0, ran.err
        want = portable.run_float([samples])[0]
        assert [entry["label"] for entry in ran.json["predictions"]] == want.argmax(1).tolist()
        assert ran.json["measurement"]["source"] == "hardware"
        assert "1,000 cycles" in command("run", portable.path, "--port", port).out
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_ports_that_cannot_be_opened_and_options_that_do_not_go_together(portable, tmp_path, monkeypatch) -> None:
    pytest.importorskip("serial")
    (tmp_path / "file").touch()
    for name in (tmp_path / "none", tmp_path / "file"):
        assert f"the serial port {name} cannot be opened" in refused("run", portable.path, "--port", name)
    assert "leave out --layers" in refused("run", portable.path, "--port", "x", "--layers")
    assert "leave out --emulator" in refused("run", portable.path, "--port", "x", "--emulator")
    assert "name it with --port" in refused("run", portable.path, "--baud", 9600)
    monkeypatch.setitem(sys.modules, "serial", None)
    message = r"need pyserial; install it with pip install 'tvmcompress\[serial\]'"
    with pytest.raises(MissingToolError, match=message), open_port("x"):
        pass
