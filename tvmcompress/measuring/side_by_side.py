"""Measurements that do not disturb each other, several at once: instructions are counted exactly, whatever else runs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import TypeVar

from ..errors import UserError
from ..targets.children import die_with_parent
from ..targets.objects import available_cpus

T = TypeVar("T")


class LostJobError(UserError):
    """A process ended without a result."""

    exit_code = 1


def side_by_side(jobs: Sequence[Callable[[], T]], on_done: Callable[[int, T], None]) -> None:
    """Do jobs in processes of their own, as many at once as this process may use CPUs.

    Args:
        jobs: Each gives something that can be pickled; a forked process has at hand what it needs.
        on_done: Told the number and the result of each as it ends, in this process.

    Raises:
        Exception: The first that a job raises; the others are ended, with all that they run.
        LostJobError: A process died.
    """
    fork = multiprocessing.get_context("fork")
    waiting = list(enumerate(jobs))
    running: dict[Connection, tuple[int, ForkProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < available_cpus():
                number, job = waiting.pop(0)
                result, sender = fork.Pipe(duplex=False)
                # No daemon: it compiles in children of its own.
                process = fork.Process(target=_do, args=(job, sender, os.getpid()))
                with _no_interrupt():
                    process.start()
                sender.close()
                running[result] = number, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, process = running[ready]
                try:
                    value, error = ready.recv()
                except EOFError:
                    process.join()
                    raise LostJobError(
                        f"a process that builds and measures ended with {process.exitcode}; is there memory enough?"
                    ) from None
                del running[ready]
                process.join()
                if error is not None:
                    raise error
                on_done(number, value)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


def _do(job: Callable[[], T], sender: Connection, parent: int) -> None:
    """In the child: send what comes of it."""
    die_with_parent(parent)
    try:
        answer: tuple[T | None, BaseException | None] = (job(), None)
    except BaseException as error:
        answer = (None, error)
    try:
        pickle.loads(pickle.dumps(answer[1]))
    except Exception:  # some exceptions cannot be sent
        answer = (None, RuntimeError(str(answer[1])))
    sender.send(answer)
    # Not what a process does at its end: it would be done twice.
    os._exit(0)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """What is started inside does not hear of Ctrl-C, which goes to all processes of a terminal; its parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
