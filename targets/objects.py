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
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ..passes._tvm import TVM_VERSION, tirx, tvm
from ..passes.errors import UserError

CACHE_VARIABLE = "TVMCOMPRESS_CACHE"
"""Where compiled functions are kept; empty for nowhere."""

LIMIT = 60.0
"""Seconds that a function may take before its next alternative is tried."""
_LAST_LIMIT = 600.0
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
    process: BaseProcess | None = None
    deadline: float = 0.0


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

    def take(self, func: tirx.PrimFunc, path: Path) -> bool:
        """Copy the object of a function to `path`, where there is one."""
        place = self.place(func)
        try:
            if place is None or not place.exists():
                return False
            shutil.copyfile(place, path)
            os.utime(place)
        except OSError:
            return False
        return True

    def keep(self, func: tirx.PrimFunc, path: Path) -> None:
        """Keep an object. A cache that cannot be written is none."""
        place = self.place(func)
        if place is None:
            return
        partial = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, partial)
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
    """
    objects = _Objects(target)
    paths = {name: folder / f"f{index}.o" for index, name in enumerate(functions)}
    done: dict[str, CompiledFunction] = {}
    waiting = deque(_Job(name, alternatives) for name, alternatives in functions.items())
    running: list[_Job] = []
    fresh = False
    try:
        while waiting or running:
            while waiting and len(running) < _workers():
                job = waiting.popleft()
                if objects.take(job.alternatives[job.index], paths[job.name]):
                    done[job.name] = CompiledFunction(paths[job.name], job.index, job.reason)
                else:
                    _start(job, target, paths[job.name], limit)
                    running.append(job)
            for job in list(_ended(running)):
                running.remove(job)
                failure = _outcome(job, paths[job.name])
                if failure is None:
                    fresh = True
                    objects.keep(job.alternatives[job.index], paths[job.name])
                    done[job.name] = CompiledFunction(paths[job.name], job.index, job.reason)
                elif job.index + 1 < len(job.alternatives):
                    waiting.appendleft(_Job(job.name, job.alternatives, job.index + 1, job.reason or failure))
                else:
                    raise UserError(f"{job.name} cannot be compiled: {failure}")
    finally:
        for job in running:
            _kill(job)
    if fresh:
        objects.shrink()
    return done


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(job: _Job, target: tvm.target.Target, path: Path, limit: float) -> None:
    last = job.index + 1 == len(job.alternatives)
    # A forked child has TVM loaded, and the function at hand.
    arguments = (job.alternatives[job.index], target, path)
    job.process = multiprocessing.get_context("fork").Process(target=_compile, args=arguments, daemon=True)
    job.deadline = time.monotonic() + (_LAST_LIMIT if last else limit)
    job.process.start()


def _compile(func: tirx.PrimFunc, target: tvm.target.Target, path: Path) -> None:
    """In the child: write the object, or beside it what was wrong."""
    faulthandler.disable()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        name = str(func.attrs["global_symbol"])
        tvm.tirx.build(tvm.IRModule({name: func}), target=target).write_to_file(str(path))
    except BaseException as error:
        _complaint(path).write_text(next(iter(str(error).strip().splitlines()[::-1]), type(error).__name__))
        os._exit(1)
    os._exit(0)


def _complaint(path: Path) -> Path:
    return path.with_suffix(".txt")


def _ended(running: Sequence[_Job]) -> Iterator[_Job]:
    """Those that have ended, or are out of time; waits for the first."""
    first = min((job.deadline for job in running), default=0.0)
    sentinels = [job.process.sentinel for job in running if job.process is not None]
    wait(sentinels, max(0.0, first - time.monotonic()))
    for job in running:
        assert job.process is not None
        if not job.process.is_alive() or time.monotonic() >= job.deadline:
            yield job


def _outcome(job: _Job, path: Path) -> str | None:
    """None where the object is there; otherwise what happened, as half a sentence."""
    assert job.process is not None
    if job.process.is_alive():
        _kill(job)
        return "it takes too long to compile"
    job.process.join()
    code = job.process.exitcode
    if code == 0 and path.exists():
        return None
    complaint = _complaint(path)
    if complaint.exists():
        return complaint.read_text() or "the compiler failed"
    return f"the compiler ended with signal {-code}" if code is not None and code < 0 else "its object cannot be written"


def _kill(job: _Job) -> None:
    if job.process is not None:
        job.process.kill()
        job.process.join()
