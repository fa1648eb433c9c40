"""TVM's RPC tracker, which knows the boards that are free: asked with time limits, its answers checked.

TVM's own `TrackerSession` tries for a minute where nobody listens, and waits for ever for a key that no board has. The messages
are those of `tvm.rpc.base`.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from tvm.rpc import base

from ...passes.errors import UserError
from ..record import Record
from .errors import NoBoardError

_ANSWER = 10.0
"""Seconds for an answer of the tracker."""
_LOOK = 2.0
"""Seconds of waiting for a board after which to look whether there still is one."""


class Queue(Record):
    """The boards of one key.

    Attributes:
        key: As their servers were started with.
        servers: Their addresses, HOST:PORT.
        free: How many of them serve nobody.
        pending: How many clients wait for one.
    """

    key: str
    servers: tuple[str, ...]
    free: int
    pending: int


class Place(Record):
    """A board that was given to us.

    Attributes:
        host, port: Where its server listens.
        match: The word by which it knows us.
    """

    host: str
    port: int
    match: str

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.host}:{self.port}"


class Tracker:
    """A tracker.

    Args:
        address: HOST:PORT.

    Raises:
        UserError: The address is none.
    """

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"\[?([^\s\[\]]+?)\]?:([0-9]{1,5})", address)
        if not found or not 0 < int(found[2]) < 1 << 16:
            raise UserError(f"{address} is not the address of a tracker; write HOST:PORT, as in localhost:9190")
        self.address = address
        self._host, self._port = found[1], int(found[2])

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return self._host, self._port

    def queues(self) -> list[Queue]:
        """The keys that boards have or clients wait for.

        Raises:
            UserError: No tracker answers there.
        """
        with self._connected() as line:
            status, summary = self._ask(line, [base.TrackerCode.SUMMARY])
        if status != base.TrackerCode.SUCCESS:
            raise UserError(f"the tracker at {self.address} refuses to tell its boards (code {status})")
        servers: dict[str, list[str]] = {}
        for server in summary["server_info"]:
            host, port = server["addr"]
            servers.setdefault(str(server["key"]).partition(":")[2], []).append(f"{host}:{port}")
        empty = {"free": 0, "pending": 0}
        queues = {**dict.fromkeys(servers, empty), **summary["queue_info"]}
        return [
            Queue(key=key, servers=tuple(sorted(servers.get(key, ()))), free=counts["free"], pending=counts["pending"])
            for key, counts in sorted(queues.items())
            if key in servers or counts["pending"]
        ]

    def servers(self, key: str) -> tuple[str, ...]:
        """The addresses of the boards with a key.

        Raises:
            UserError: No tracker answers there.
        """
        return next((queue.servers for queue in self.queues() if queue.key == key), ())

    def require(self, key: str) -> tuple[str, ...]:
        """The same, where there must be one.

        Raises:
            NoBoardError: There is none.
        """
        servers = self.servers(key)
        if not servers:
            keys = ", ".join(queue.key for queue in self.queues() if queue.servers)
            known = f"its boards have the keys {keys}" if keys else "it has no boards at all"
            raise NoBoardError(
                f"no board with key '{key}' is at the tracker {self.address}; {known}: start a server there with --key {key}, "
                "or name another with --key"
            )
        return servers

    def request(self, key: str, patience: float) -> Place:
        """A free board, which is then kept for us for a few seconds.

        Args:
            key: Of the board.
            patience: Seconds to wait for a board that is busy.

        Raises:
            NoBoardError: There is none with this key, or none becomes free.
            UserError: No tracker answers.
        """
        self.require(key)
        deadline = time.monotonic() + patience
        with self._connected() as line:
            base.sendjson(line, [base.TrackerCode.REQUEST, key, "", 1])
            while not _readable(line, min(_LOOK, max(0.0, deadline - time.monotonic()))):
                self.require(key)
                if time.monotonic() >= deadline:
                    raise NoBoardError(f"no board with key '{key}' at the tracker {self.address} became free in {patience:g} s")
            status, (host, port, match) = self._received(line)
        if status != base.TrackerCode.SUCCESS:
            raise NoBoardError(f"the tracker at {self.address} gives no board with key '{key}' (code {status})")
        return Place(host=str(host), port=int(port), match=str(match))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        try:
            with socket.create_connection((self._host, self._port), timeout=_ANSWER) as line:
                line.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
                if struct.unpack("<i", base.recvall(line, 4))[0] != base.RPC_TRACKER_MAGIC:
                    raise UserError(f"what answers at {self.address} is no TVM RPC tracker")
                yield line
        except TimeoutError as error:
            raise UserError(f"the tracker at {self.address} does not answer; is this its address?") from error
        except OSError as error:
            raise UserError(
                f"there is no tracker at {self.address} ({error.strerror or error}); "
                "start one with: python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190"
            ) from error

    def _ask(self, line: socket.socket, message: list[Any]) -> Any:
        base.sendjson(line, message)
        return self._received(line)

    def _received(self, line: socket.socket) -> Any:
        try:
            return base.recvjson(line)
        except ValueError as error:
            raise UserError(f"what answers at {self.address} is no TVM RPC tracker") from error


def _readable(line: socket.socket, seconds: float) -> bool:
    """Whether something comes within some seconds; it is left there."""
    line.settimeout(max(seconds, 0.01))
    try:
        return bool(line.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        line.settimeout(_ANSWER)
