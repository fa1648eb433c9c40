"""Functions to object files: in child processes, several at once, kept for the next build.

A child keeps the process safe from what LLVM does where it cannot go on (it aborts), and from a function whose lowering
does not end. A function that fails or takes too long is compiled from its next alternative, the generic schedule last.
Functions that differ in their names alone are compiled once, and what was compiled before, by any build, is not compiled
again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from ..passes._tvm import tirx, tvm
from ..passes.errors import UserError
from .children import die_with_parent
from .object_cache import Made, ObjectCache
from .object_code import object_code

LIMIT = 60.0
"""Seconds that a function may take before its next alternative is tried."""
_LAST_LIMIT = 600.0

AS_WRITTEN = "tvmcompress.as_written"
"""Attribute of a function that LLVM has nothing to optimize in, and would take long to find that out."""

_LEAST_NAME = 8
"""Characters of a name that object code does not have in it by chance."""


@dataclass(frozen=True)
class Compiler:
    """How functions become objects.

    Attributes:
        compile: Compiles one, whose attribute `global_symbol` is its name.
        identity: All that the object depends on besides the function.
    """

    compile: Callable[[tirx.PrimFunc], Made]
    identity: str

    @staticmethod
    def for_runtime(target: tvm.target.Target) -> Compiler:
        """TVM's own: functions as its runtime calls them; LLVM optimizes those that do not say `AS_WRITTEN`."""
        plain = tvm.target.Target({**target.export(), "opt-level": 0})

        def compiled(func: tirx.PrimFunc) -> Made:
            module = tvm.IRModule({str(func.attrs["global_symbol"]): func})
            return Made(object_code(tvm.tirx.build(module, target=plain if AS_WRITTEN in func.attrs else target)))

        return Compiler(compiled, f"for TVM's runtime, {target}")


@dataclass(frozen=True)
class CompiledFunction:
    """An object file.

    Attributes:
        content: It.
        facts: What the compiler said of it.
        alternative: Which of the alternatives it holds.
        reason: Why it is not the first; None where it is.
    """

    content: bytes
    facts: dict[str, Any]
    alternative: int
    reason: str | None


@dataclass
class _Job:
    """A function to compile, under a name that it shares with all of the same length, and who asked for it."""

    func: tirx.PrimFunc
    key: str
    last: bool
    names: list[str] = field(default_factory=list)


class _Worker:
    """A child that compiles one function after the other."""

    def __init__(self, compiler: Compiler, jobs: Mapping[str, _Job]) -> None:
        fork = multiprocessing.get_context("fork")  # a forked child has TVM loaded, and the functions at hand
        self.connection, other = fork.Pipe()
        functions = {key: job.func for key, job in jobs.items()}
        self._process = fork.Process(target=_serve, args=(functions, compiler, other, os.getpid()), daemon=True)
        self._process.start()
        other.close()
        self._known = functions.keys()
        self.job: _Job | None = None
        self.deadline = float("inf")

    def knows(self, job: _Job) -> bool:
        """Whether it was started with this function."""
        return job.key in self._known

    def start(self, job: _Job, limit: float) -> None:
        self.job, self.deadline = job, time.monotonic() + (_LAST_LIMIT if job.last else limit)
        with contextlib.suppress(OSError):  # it has died, as `outcome` will find
            self.connection.send(job.key)

    def outcome(self) -> Made | str:
        """The object, or what happened instead, as half a sentence; then the child has ended."""
        self.deadline = float("inf")
        if not self.connection.poll():
            self.kill()
            return "it takes too long to compile"
        try:
            made: Made | str = self.connection.recv()
            return made
        except (EOFError, OSError):
            self._process.join()
            return f"the compiler ended with signal {-(self._process.exitcode or 0)}"

    def alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def compile_functions(
    functions: Mapping[str, Sequence[tirx.PrimFunc]], compiler: Compiler, *, limit: float = LIMIT
) -> dict[str, CompiledFunction]:
    """Compile functions into objects, as many at once as there are CPUs.

    Args:
        functions: By name; the alternatives of each compute the same, the best first.
        compiler: How.
        limit: Seconds for an alternative that is not the last.

    Returns:
        By name, in the order given.

    Raises:
        UserError: A function cannot be compiled from any alternative.
    """
    cache = ObjectCache(compiler.identity)
    done: dict[str, CompiledFunction] = {}
    tries = dict.fromkeys(functions, (0, ""))
    jobs: dict[str, _Job] = {}
    waiting: deque[_Job] = deque()
    workers: list[_Worker] = []
    fresh = False

    def ask(name: str) -> None:
        """Have the next alternative of a function compiled, or find it."""
        index, reason = tries[name]
        alternatives = functions[name]
        if index == len(alternatives):
            raise UserError(f"{name} cannot be compiled: {reason}")
        func = alternatives[index].with_attr("global_symbol", _stand_in(name))
        key = cache.key(func)
        if key in jobs:
            jobs[key].names.append(name)
            return
        known = cache.take(key)
        if known is not None:
            finish(name, known)
            return
        jobs[key] = _Job(func, key, index + 1 == len(alternatives), [name])
        waiting.append(jobs[key])

    def finish(name: str, made: Made) -> None:
        index, reason = tries[name]
        content = made.content.replace(_stand_in(name).encode(), name.encode())
        done[name] = CompiledFunction(content, made.facts, index, reason or None)

    try:
        for name in functions:
            ask(name)
        while jobs:
            _hand_out(waiting, workers, compiler, jobs, limit)
            for worker in _ended(workers):
                job, made = worker.job, worker.outcome()
                assert job is not None
                worker.job = None
                if not worker.alive():
                    workers.remove(worker)
                del jobs[job.key]
                if isinstance(made, Made):
                    fresh = True
                    cache.keep(job.key, made)
                for name in job.names:
                    if isinstance(made, Made):
                        finish(name, made)
                    else:
                        index, reason = tries[name]
                        tries[name] = (index + 1, reason or made)
                        ask(name)
    finally:
        for worker in workers:
            worker.kill()
    if fresh:
        cache.shrink()
    return {name: done[name] for name in functions}


def _stand_in(name: str) -> str:
    """A name of the same length that takes the place of a function's until its object is used; short ones stay."""
    return f"_{'zq' * len(name)}"[: len(name)] if len(name) >= _LEAST_NAME else name


def available_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _hand_out(waiting: deque[_Job], workers: list[_Worker], compiler: Compiler, jobs: Mapping[str, _Job], limit: float) -> None:
    """Give every CPU something to do."""
    while waiting:
        job = waiting[0]
        idle = [worker for worker in workers if worker.job is None]
        worker = next((worker for worker in idle if worker.knows(job)), None)
        if worker is None:
            if idle:
                idle[0].kill()
                workers.remove(idle[0])
            elif len(workers) == available_cpus():
                return
            worker = _Worker(compiler, jobs)
            workers.append(worker)
        worker.start(waiting.popleft(), limit)


def _serve(functions: Mapping[str, tirx.PrimFunc], compiler: Compiler, connection: Any, parent: int) -> None:
    """In the child: for each key that comes send the object, or what was wrong."""
    die_with_parent(parent)
    faulthandler.disable()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    while True:
        try:
            key = connection.recv()
        except EOFError:
            # Not what a process does at its end: it would be done twice.
            os._exit(0)
        try:
            connection.send(compiler.compile(functions[key]))
        except BaseException as error:
            lines = str(error).strip().splitlines()
            connection.send(lines[-1].strip() if lines else type(error).__name__)


def _ended(workers: Sequence[_Worker]) -> list[_Worker]:
    """Those that have an outcome, or are out of time; waits for the first."""
    busy = [worker for worker in workers if worker.job is not None]
    first = min((worker.deadline for worker in busy), default=0.0)
    ready = wait([worker.connection for worker in busy], max(0.0, first - time.monotonic()))
    return [worker for worker in busy if worker.connection in ready or time.monotonic() >= worker.deadline]
