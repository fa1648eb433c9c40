"""A tracker and servers of TVM's on this machine, as boards of a pool: started in one process, so that TVM is loaded once.

Run as a program it serves the commands of `Cluster` on its standard streams, and ends with them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field


@dataclass
class Cluster:
    """The tracker, and the processes of the servers by address.

    Attributes:
        address: Of the tracker.
        servers: A process group each.
    """

    address: str = ""
    servers: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Cluster:
        environment = {**os.environ, "TVM_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([sys.executable, "-P", __file__], text=True, env=environment, **pipes)  # type: ignore[call-overload]
        self.address = f"127.0.0.1:{self._ask('tracker')}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        for address in list(self.servers):
            self.kill(address)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def start(self, key: str) -> str:
        """Start a server; its address."""
        port, pid = self._ask(f"server {key}").split()
        self.servers[f"127.0.0.1:{port}"] = int(pid)
        return f"127.0.0.1:{port}"

    def kill(self, address: str) -> None:
        """End a server with all that it runs, as if its board had lost its power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.servers.pop(address), signal.SIGKILL)

    def pause(self, address: str) -> None:
        """Let a server and all that it runs hang."""
        os.killpg(self.servers[address], signal.SIGSTOP)

    def _ask(self, command: str) -> str:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def _serve() -> None:
    import socket
    import time

    from tvm.rpc.server import PopenRPCServerState
    from tvm.rpc.tracker import PopenTrackerServerState

    from tvmcompress.targets.children import die_with_parent

    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    tracker = ("", 0)
    for line in sys.stdin:
        command, *words = line.split()
        first = free_port()
        if command == "tracker":
            tracker = ("127.0.0.1", PopenTrackerServerState("127.0.0.1", first, first + 50, silent=True).port)
            print(tracker[1], file=out, flush=True)
            continue
        reading, writing = os.pipe()
        own = os.getpid()
        if os.fork() == 0:
            die_with_parent(own)
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if words[0] == "builders":
                import tvmcompress.targets.trials.builders  # noqa: F401
            state = PopenRPCServerState("127.0.0.1", first, first + 50, tracker_addr=tracker, key=words[0], silent=True)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and not _is_listed(tracker, state.port):
                time.sleep(0.05)
            os.write(writing, f"{state.port} {os.getpid()}\n".encode())
            state.thread.join()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            print(answer.readline().strip(), file=out, flush=True)
    os._exit(0)


def _is_listed(tracker: tuple[str, int], port: int) -> bool:
    from tvm import rpc

    session = rpc.connect_tracker(*tracker)
    listed = any(server["addr"][1] == port for server in session.summary()["server_info"])
    session.close()
    return listed


if __name__ == "__main__":
    _serve()
