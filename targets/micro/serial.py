"""The host's side of the serial line to a board; the board's side, with the protocol, is runtime/serial_main.c.j2.

Every command is one line and gets one line back. A line that is lost or damaged either way is sent again under its sequence
number; the board then repeats its reply and does nothing twice.
"""

from __future__ import annotations

import binascii
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ...passes.errors import MissingToolError, UserError
from ..record import Record

PROTOCOL = 1
CHUNK = 64
"""Bytes of a tensor in one line."""
MOST_RUNS = 16
"""Inferences of one command."""
BAUD = 115200

_ATTEMPTS = 4
_POLL = 0.05
_LONGEST = 256


class Port(Protocol):
    """What `SerialLink` needs of a port: pyserial's `Serial` with a short timeout, a `StreamPort`, or alike."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, none when nothing comes for a moment."""

    def write(self, data: bytes, /) -> int | None:
        """Send bytes."""


class StreamPort:
    """A port made of file descriptors: pipes, sockets, pseudo-terminals.

    Args:
        reading: Where the board's bytes come from.
        writing: Where bytes for the board go to.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes.

        Raises:
            OSError: The other side is gone.
        """
        if not select.select([self._reading], [], [], _POLL)[0]:
            return b""
        data = os.read(self._reading, size)
        if not data:
            raise OSError("the other side has closed the line")
        return data

    def write(self, data: bytes, /) -> int:
        """Send bytes."""
        return os.write(self._writing, data)


@contextmanager
def open_port(name: str, baud: int = BAUD) -> Iterator[Port]:
    """A serial port, closed at the end.

    Args:
        name: As the system calls it: /dev/ttyACM0.
        baud: Bits a second.

    Raises:
        MissingToolError: pyserial is not installed.
        UserError: There is no such port, or it cannot be opened.
    """
    try:
        import serial
    except ImportError as error:
        raise MissingToolError("serial ports need pyserial; install it with pip install 'tvmcompress[serial]'") from error
    try:
        port = serial.Serial(name, baud, timeout=_POLL, write_timeout=5)
    except (serial.SerialException, OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number else str(error)
        raise UserError(
            f"the serial port {name} cannot be opened: {reason}; is the board connected, and the port free?"
        ) from error
    with port:
        yield port


class PortInfo(Record):
    """A serial port of this machine.

    Attributes:
        name: As the system calls it: /dev/ttyACM0.
        description: What the system knows of what is connected.
    """

    name: str
    description: str


def serial_ports() -> list[PortInfo] | None:
    """The serial ports of this machine; None where pyserial is not installed."""
    try:
        from serial.tools import list_ports
    except ImportError:
        return None
    found = sorted(list_ports.comports(), key=lambda port: str(port.device))
    return [PortInfo(name=str(port.device), description=_described(port)) for port in found]


def _described(port: Any) -> str:
    words = [str(value) for value in (port.manufacturer, port.product, port.description) if value and value != "n/a"]
    return ", ".join(dict.fromkeys(words)) or "unknown"


def frame(payload: str) -> bytes:
    """A line with its checksum, CRC-16 with polynomial 0x1021 and start 0xFFFF."""
    data = payload.encode("ascii")
    return b":%s*%04X\n" % (data, binascii.crc_hqx(data, 0xFFFF))


def unframe(line: bytes) -> str | None:
    """The payload of a line; None where it is damaged, or is no line of the protocol."""
    start, star = line.rfind(b":"), line.rfind(b"*")
    data = line[start + 1 : star]
    if start < 0 or star < start or line[star + 1 :].strip() != b"%04X" % binascii.crc_hqx(data, 0xFFFF):
        return None
    return data.decode("ascii", "replace")


class SerialLink:
    """Commands to a board and their replies.

    Args:
        port: The port; it stays the caller's.
        name: What the port is called in messages.
        timeout: Seconds to wait for a reply before the command is sent again.
    """

    def __init__(self, port: Port, name: str, timeout: float = 1.0) -> None:
        self._port, self.name, self._timeout = port, name, timeout
        self._sequence = 0
        self._pending = b""
        # What the board has of an unfinished line ends here.
        self._write(b"\n")

    def ask(self, command: str, timeout: float | None = None) -> list[str]:
        """Send a command; the words of the reply behind OK and the command.

        Args:
            command: Without sequence number.
            timeout: Seconds to wait each time; by default that of the link.

        Raises:
            UserError: No reply came, all were damaged, the board refused, or the port is gone.
        """
        self._sequence = self._sequence % 255 + 1
        sequence = f"{self._sequence:02X}"
        damaged = 0
        for _ in range(_ATTEMPTS):
            self._write(frame(f"{sequence} {command}"))
            deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
            while (line := self._line(deadline)) is not None:
                payload = unframe(line)
                if payload is None and b"*" not in line:
                    continue  # The board prints something of its own.
                if payload is None or payload == "-- ERR CRC":
                    damaged += 1
                    break
                words = payload.split(" ")
                if words[0] == sequence:
                    return self._accept(command, words[1:])
        if damaged:
            raise UserError(
                f"the line {self.name} damages what goes over it ({damaged} checksums in {_ATTEMPTS} attempts are wrong); "
                "check the cable and --baud"
            )
        raise UserError(
            f"the board at {self.name} does not answer {command.split(' ')[0]}; is the program 'serial' of the build's CMake "
            "project running on it, with the board's uart_getc and uart_putc, at the same --baud?"
        )

    def _accept(self, command: str, words: list[str]) -> list[str]:
        if words[:1] == ["ERR"]:
            raise UserError(f"the board at {self.name} refuses {command.split(' ')[0]}: {' '.join(words[1:])}")
        if words[:2] != ["OK", command.split(" ")[0]]:
            raise UserError(f"the board at {self.name} answers '{' '.join(words)[:60]}', which is not this protocol")
        return words[2:]

    def _line(self, deadline: float) -> bytes | None:
        while b"\n" not in self._pending:
            if time.monotonic() > deadline:
                return None
            try:
                # pyserial waits for as many bytes as are asked for.
                waiting = getattr(self._port, "in_waiting", _LONGEST)
                self._pending = self._pending[-_LONGEST:] + self._port.read(max(1, min(waiting, _LONGEST)))
            except OSError as error:
                raise UserError(f"the port {self.name} is gone: {error}") from error
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as error:
            raise UserError(f"the port {self.name} is gone: {error}") from error
