"""Functions to object files: each in a child process of its own, several at once, kept for the next build.

A child keeps the process safe from what LLVM does where it cannot go on (it aborts), and from a function whose lowering
does not end. A function that fails or takes too long is compiled from its next alternative, the generic schedule last.
Objects are kept under a digest of the function, its target and the compiler, so that what was compiled before, by any
build, is not compiled again.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ..passes._tvm import TVM_VERSION, tirx, tvm
from ..passes.errors import UserError
from .children import die_with_parent
from .object_code import object_code

CACHE_VARIABLE = "TVMCOMPRESS_CACHE"
"""Where compiled functions are kept; empty for nowhere."""

LIMIT = 60.0
"""Seconds that a function may take before its next alternative is tried."""
_LAST_LIMIT = 600.0
_DIGEST = hashlib.sha256().digest_size
_MOST_BYTES = 256 << 20
"""Kept objects take at most so much; those not used for longest go first."""


@dataclass(frozen=True)
class CompiledFunction:
    """An object file.

    Attributes:
        path: The file.
        alternative: Which of the alternatives it holds.
        reason: Why it is not the first; None where it is.
    """

    path: Path
    alternative: int
    reason: str | None


@dataclass
class _Job:
    name: str
    alternatives: Sequence[tirx.PrimFunc]
    index: int = 0
    reason: str | None = None
    place: Path | None = None

    def start(self, target: tvm.target.Target, limit: float) -> None:
        last = self.index + 1 == len(self.alternatives)
        fork = multiprocessing.get_context("fork")  # a forked child has TVM loaded, and the function at hand
        self.result, sender = fork.Pipe(duplex=False)
        arguments = (self.alternatives[self.index], target, sender, os.getpid())
        self.process = fork.Process(target=_compile, args=arguments, daemon=True)
        self.deadline = time.monotonic() + (_LAST_LIMIT if last else limit)
        self.process.start()
        sender.close()

    def outcome(self) -> bytes | str:
        """The object, or what happened instead, as half a sentence."""
        if not self.result.poll():
            self.kill()
            return "it takes too long to compile"
        try:
            made: bytes | str = self.result.recv()
        except EOFError:
            made = ""
        self.process.join()
        return made or f"the compiler ended with signal {-(self.process.exitcode or 0)}"

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


class _Objects:
    """The kept objects."""

    def __init__(self, target: tvm.target.Target) -> None:
        place = os.environ.get(CACHE_VARIABLE)
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvmcompress"
        self.folder = None if place == "" else (Path(place) if place else base) / "objects"
        self._salt = f"{TVM_VERSION} {target}\n".encode()

    def place(self, func: tirx.PrimFunc) -> Path | None:
        """Where the object of a function is kept, or would be."""
        if self.folder is None:
            return None
        return self.folder / hashlib.sha256(self._salt + tvm.ir.save_json(func).encode()).hexdigest()

    def take(self, place: Path | None) -> bytes | None:
        """The object that is kept there, if one is."""
        if place is None:
            return None
        try:
            os.utime(place)
            data = place.read_bytes()
            return data[:-_DIGEST] if hashlib.sha256(data[:-_DIGEST]).digest() == data[-_DIGEST:] else None
        except OSError:
            return None

    def keep(self, place: Path | None, content: bytes) -> None:
        """Keep an object. A cache that cannot be written is none."""
        if place is None:
            return
        partial = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # A damaged object would be linked without a word.
            partial.write_bytes(content + hashlib.sha256(content).digest())
            partial.replace(place)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()

    def shrink(self) -> None:
        """Remove what was not used for longest."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            files = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(self.folder))
            excess = sum(size for _, size, _ in files) - _MOST_BYTES
            for _, size, path in files:
                if excess <= 0:
                    break
                os.unlink(path)
                excess -= size


def compile_functions(
    functions: Mapping[str, Sequence[tirx.PrimFunc]], target: tvm.target.Target, folder: Path, *, limit: float = LIMIT
) -> dict[str, CompiledFunction]:
    """Compile functions into object files, as many at once as there are CPUs.

    Args:
        functions: By name; the alternatives of each compute the same, the best first.
        target: What to compile for.
        folder: Where the objects are written, as `f0.o`, `f1.o`, ...
        limit: Seconds for an alternative that is not the last.

    Raises:
        UserError: A function cannot be compiled from any alternative.
        OSError: An object cannot be written.
    """
    objects = _Objects(target)
    paths = {name: folder / f"f{index}.o" for index, name in enumerate(functions)}
    done: dict[str, CompiledFunction] = {}
    waiting = deque(_Job(name, alternatives) for name, alternatives in functions.items())
    running: list[_Job] = []
    fresh = False

    def finish(job: _Job, content: bytes) -> None:
        paths[job.name].write_bytes(content)
        done[job.name] = CompiledFunction(paths[job.name], job.index, job.reason)

    try:
        while waiting or running:
            while waiting and len(running) < available_cpus():
                job = waiting.popleft()
                job.place = objects.place(job.alternatives[job.index])
                known = objects.take(job.place)
                if known is not None:
                    finish(job, known)
                else:
                    job.start(target, limit)
                    running.append(job)
            for job in _ended(running):
                running.remove(job)
                made = job.outcome()
                if isinstance(made, bytes):
                    fresh = True
                    objects.keep(job.place, made)
                    finish(job, made)
                elif job.index + 1 < len(job.alternatives):
                    waiting.appendleft(_Job(job.name, job.alternatives, job.index + 1, job.reason or made))
                else:
                    raise UserError(f"{job.name} cannot be compiled: {made}")
    finally:
        for job in running:
            job.kill()
    if fresh:
        objects.shrink()
    return done


def available_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _compile(func: tirx.PrimFunc, target: tvm.target.Target, result: Connection, parent: int) -> None:
    """In the child: send the object, or what was wrong."""
    die_with_parent(parent)
    faulthandler.disable()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        name = str(func.attrs["global_symbol"])
        result.send(object_code(tvm.tirx.build(tvm.IRModule({name: func}), target=target)))
    except BaseException as error:
        lines = str(error).strip().splitlines()
        result.send(lines[-1].strip() if lines else type(error).__name__)
    # Not what a process does at its end: it would be done twice.
    os._exit(0)


def _ended(running: Sequence[_Job]) -> list[_Job]:
    """Those that have ended, or are out of time; waits for the first."""
    first = min((job.deadline for job in running), default=0.0)
    ready = wait([job.result for job in running], max(0.0, first - time.monotonic()))
    return [job for job in running if job.result in ready or time.monotonic() >= job.deadline]
