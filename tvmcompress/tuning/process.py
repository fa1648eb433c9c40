"""Worker processes as their clients see them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .worker import Reply, read_frame, write_frame


class Worker:
    """A process that compiles and runs candidates; started at the first call, and again whenever it is gone.

    Args:
        threads: Threads that a candidate may use.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._closed = False

    def call(self, command: str, *arguments: Any, limit: float = 30.0) -> Reply:
        """Send a request and wait for its outcome.

        Args:
            command: `build`, `reference` or `run`.
            arguments: As in the functions of `worker` of that name.
            limit: Seconds after which the request is given up.

        Returns:
            (status, value); the status is `ok`, `wrong`, `error`, `timeout` or `crash`.
        """
        if self._closed:
            return "crash", "the worker process was closed"
        try:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            write_frame(process.stdin, (command, arguments, limit))
            return read_frame(process.stdout)
        except (EOFError, BrokenPipeError):
            self._kill()
            return "crash", "the worker process was killed"

    def close(self) -> None:
        """End the process; what it is doing is given up, and it is not started again."""
        self._closed = True
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # The worker and its child are a process group of their own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        if self._process is None:
            environment = {**os.environ, "TVM_NUM_THREADS": str(self._threads), "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tvmcompress.tuning.worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
            self._ready = False

    def _started(self) -> subprocess.Popen[bytes]:
        self.start()
        process = self._process
        assert process is not None
        assert process.stdout is not None
        if not self._ready:
            read_frame(process.stdout)
            self._ready = True
        return process


class WorkerPool:
    """Several workers that take requests off one list.

    Args:
        size: How many.
        threads: Threads that a candidate may use.
    """

    def __init__(self, size: int, threads: int = 1) -> None:
        self.workers = [Worker(threads) for _ in range(size)]
        self._executor = ThreadPoolExecutor(size)
        # Loading TVM takes seconds: all at the same time.
        for worker in self.workers:
            worker.start()

    def map(self, command: str, requests: Sequence[Sequence[Any]], limit: float) -> list[Reply]:
        """The outcomes of requests of one kind, in their order."""
        idle = list(self.workers)

        def one(arguments: Sequence[Any]) -> Reply:
            worker = idle.pop()
            try:
                return worker.call(command, *arguments, limit=limit)
            finally:
                idle.append(worker)

        return list(self._executor.map(one, requests))

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
