"""Trying kernels on a real microcontroller: the program of candidates is flashed, and answers over its serial line."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...passes.errors import ToolError, UserError
from ..base import Artifact, TargetDescription
from ..emulators.tools import run
from ..trials.execution import Ran, Transport
from .board import BoardArtifact
from .library_routines import trial_routines
from .project import RUNTIME, STACK_BYTES, write_board_script
from .serial import BAUD, Port, SerialLink, open_port, unframe
from .trials import OTHER_BYTES

_BOOT = 10.0
"""Seconds from the end of flashing to the first line."""
_LONGEST = 256
_ROUNDS = 200
"""In which the same lines are said, before those that were always damaged are given up."""


class Starter(Protocol):
    """How a program gets onto a board."""

    def __call__(self, program: Path) -> AbstractContextManager[Port]:
        """Start a program (ELF); its line, until the end of the context."""


@dataclass(frozen=True)
class FlashedBoard:
    """A board that a command flashes and resets.

    Attributes:
        port: The serial port.
        flash: The command, with {elf} or {bin} in place of the program.
        baud: Bits a second.
        limit: Seconds that flashing may take.
    """

    port: str
    flash: str
    baud: int = BAUD
    limit: float = 120.0

    def __post_init__(self) -> None:
        if "{elf}" not in self.flash and "{bin}" not in self.flash:
            raise UserError(f"the command '{self.flash}' does not say which program to flash; write {{elf}} or {{bin}} for it")

    @contextmanager
    def __call__(self, program: Path) -> Iterator[Port]:
        """Flash, with the port open so that nothing is missed.

        Raises:
            UserError: The port cannot be opened.
            ToolError: Flashing failed.
        """
        binary = program.with_suffix(".bin")
        run(["arm-none-eabi-objcopy", "-O", "binary", program, binary], what="writing the program for the board", timeout=60)
        words = [word.format(elf=program, bin=binary) for word in shlex.split(self.flash)]
        with open_port(self.port, self.baud) as port:
            run(words, what="flashing the board", timeout=self.limit, lasting=True)
            yield port


class CortexMBoard:
    """A board; attributes as of `trials.image.Emulator`. Costs are cycles of the core's counter.

    Args:
        description: The board.
        source: A C file with the board's uart_init and uart_putc, and what else it needs, see runtime/serial_line.h.
        start: How programs get onto it.
    """

    prefix = "arm-none-eabi-"
    transport: Transport = "serial"
    at_once = 1

    def __init__(self, description: TargetDescription, source: Path, start: Starter) -> None:
        self.description, self._source, self._start = description, source, start
        self.tvm = description.tvm
        # The other half is for the code.
        self.most_bytes = min(description.flash_bytes // 2, 1 << 20)
        self.memory_bytes = description.ram_bytes - STACK_BYTES - OTHER_BYTES

    def support(self, folder: Path, objects: Sequence[bytes]) -> tuple[list[Path], list[str | Path]]:
        """Start-up code, the serial line, the board's own file, and the linker script.

        Raises:
            UserError: The board's file cannot be read.
        """
        try:
            shutil.copyfile(self._source, folder / "board.c")
        except OSError as error:
            raise UserError(f"the board's source {self._source} cannot be read: {error.strerror or error}") from error
        for name in ("startup.c", "semihosting.h", "serial_line.h", "trial_serial.h", "trial_serial.c"):
            shutil.copyfile(RUNTIME / name, folder / name)
        (folder / "number.c").write_text(f"#include <stdint.h>\nconst uint32_t trial_program = {_number(folder)}u;\n")
        write_board_script(folder / "board.ld", self.description)
        sources = [folder / name for name in ("startup.c", "trial_serial.c", "number.c", "board.c")]
        sources += trial_routines(folder, objects)
        return sources, ["-nostartfiles", "-specs=nano.specs", "-T", folder / "board.ld"]

    @contextmanager
    def running(self, built: Artifact) -> Iterator[BoardArtifact]:
        """A build whose program for the serial line is flashed; the board's file needs uart_getc for it.

        Args:
            built: Built for this board.

        Raises:
            UserError: The port cannot be opened, or the board does not answer.
            ToolError: It does not fit the board, or flashing failed.
        """
        firmware = built.path / "firmware"
        with tempfile.TemporaryDirectory(prefix="tvmcompress-board-") as scratch:
            program = Path(scratch) / "serial.elf"
            sources = [firmware / "serial_main.c", firmware / "startup.c", self._source]
            command: list[str | Path] = [f"{self.prefix}gcc", "-std=gnu11", "-O2", *self.flags()]
            library = next(built.path.glob("lib*.a"))
            command += ["-I", built.path, "-I", firmware, *sources, library, "-lm", "-nostartfiles", "-specs=nano.specs"]
            command += ["-Wl,--gc-sections", "-T", firmware / "board.ld", "-o", program]
            run(command, what="building the model for the board", timeout=120)
            with self._start(program) as port:
                # This program speaks when it is spoken to: what comes now is the rest of the one before.
                deadline = time.monotonic() + _BOOT
                while port.read(_LONGEST) and time.monotonic() < deadline:
                    pass
                yield BoardArtifact(built, SerialLink(port, self.description.name))

    def flags(self) -> list[str]:
        """Of the compiler."""
        return ["-mthumb", *self.description.compiler_flags]

    def execute(self, program: Path, folder: Path, expected: Sequence[bytes], limit: float) -> Ran:
        """Flash a program and listen.

        Raises:
            UserError: The port cannot be opened, or is gone.
            ToolError: Flashing failed, or nothing answers.
        """
        with self._start(program) as port:
            results, silent = _listen(port, _number(folder), len(expected), limit)
        if silent == "boot":
            raise ToolError(f"the board says nothing {_BOOT:g} s after it was flashed; are its UART and the baud rate right?")
        data, costs = bytearray(), []
        for index, wanted in enumerate(expected):
            if index not in results:
                break
            intact, checksum, cycles = results[index]
            right = intact == 1 and checksum == zlib.crc32(wanted)
            data += b"\1" + wanted if right else bytes(1 + len(wanted))
            costs.append(cycles)
        if len(costs) == len(expected):
            return Ran(bytes(data), costs)
        return Ran(bytes(data), costs, failure=f"the board fell silent for {limit:g} s while it ran", hung=True)


def _number(folder: Path) -> int:
    """What a program says that it is, so that lines of the one before, which the system has kept, are not taken for its own."""
    return 1000 + zlib.crc32(str(folder).encode()) % 9000


def _listen(port: Port, program: int, runs: int, limit: float) -> tuple[dict[int, tuple[int, int, int]], str | None]:
    """The results of a program's runs by number: whether its surroundings are intact, the checksum of its output, cycles.
    Then, where the board fell silent, when: "boot" or "run".

    Raises:
        UserError: The line is gone, or damages too much.
    """
    results: dict[int, tuple[int, int, int]] = {}
    pending, heard, idle = b"", False, 0
    deadline = time.monotonic() + _BOOT
    while len(results) < runs:
        if time.monotonic() > deadline:
            return results, "run" if heard else "boot"
        try:
            pending += port.read(max(1, min(getattr(port, "in_waiting", _LONGEST), _LONGEST)))
        except OSError as error:
            raise UserError(f"the board's line is gone: {error}") from error
        *lines, pending = pending.split(b"\n")
        for line in lines:
            idle += 1
            if idle > _ROUNDS * (runs + 1):
                missing = runs - len(results)
                raise UserError(f"the board's line damages {missing} of {runs} results again and again; check the cable")
            words = (unframe(line) or "").split(" ")
            if words[0] not in ("START", "RUN", "END"):
                continue
            if words[1:2] != [str(program)]:
                idle = 0  # What the program before has left behind.
                continue
            heard = True
            deadline = time.monotonic() + limit
            if words[0] == "RUN" and len(words) == 6:
                number, *result = map(int, words[2:])
                idle = idle if number in results else 0
                results[number] = (result[0], result[1], result[2])
    return results, None
