"""The process that compiles and runs candidates, so that a candidate can take down nothing else.

Started once by `process.Worker`. It loads TVM and forks a child that serves requests; when a candidate kills the child
(an illegal instruction, a wild pointer, a time limit), the parent says so in the child's place and forks another, which
takes milliseconds where starting Python and loading TVM takes seconds. Time limits are alarm signals: they end native
code too.

Requests and replies are pickles behind an eight-byte length on the standard streams. A reply is `(status, value)` with
status `ok`, `wrong` (the candidate computed something else), `error`, `timeout` or `crash`.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

Reply = tuple[str, Any]


class Readable(Protocol):
    """A stream of which one can read exactly so many bytes."""

    def read(self, count: int, /) -> bytes:
        """`count` bytes, fewer only at the end."""


def read_frame(stream: Readable) -> Any:
    """The next object of a stream; EOFError at its end."""
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", header)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def write_frame(stream: IO[bytes], value: Any) -> None:
    """Write an object to a stream, at once."""
    data = pickle.dumps(value)
    stream.write(struct.pack("<Q", len(data)) + data)
    stream.flush()


def build(module: str, target: str, output: str) -> Reply:
    """Compile a scheduled module to a shared library."""
    from tvmcompress.passes._tvm import tvm

    mod = tvm.ir.load_json(module)
    library = tvm.tirx.build(mod, target=tvm.target.Target(_json(target)))
    compiled = getattr(library, "mod", library)
    if not _link(compiled, output):
        compiled.export_library(output)
    return "ok", None


def _link(module: Any, output: str) -> bool:
    """Link a module by the linker itself, where there is one; a compiler that calls it takes ten times as long."""
    from tvmcompress.targets.object_code import object_code

    linker = shutil.which("ld")
    if linker is None:
        return False
    compiled = Path(output).with_suffix(".o")
    compiled.write_bytes(object_code(module))
    try:
        return subprocess.run([linker, "-shared", "-o", output, str(compiled), "-lm"], capture_output=True).returncode == 0
    finally:
        compiled.unlink()


def reference(module: str, target: str, data: str) -> Reply:
    """Run an unscheduled module on the inputs of a data file and add what it computes to the file."""
    from tvmcompress.passes._tvm import tvm

    library = tvm.tirx.build(tvm.ir.load_json(module), target=tvm.target.Target(_json(target)))
    function = getattr(library, "mod", library)["main"]
    arrays = _arrays(data)
    tensors = [tvm.runtime.tensor(array) for array in arrays["inputs"]]
    output = tvm.runtime.tensor(poisoned(arrays["output"]))
    function(*tensors, output)
    np.savez(data, *arrays["inputs"], output=arrays["output"], expected=output.numpy())
    _CACHE.clear()
    return "ok", bool(np.isfinite(output.numpy()).all())


def run(library: str, data: str, tolerance: float, repeat: int, milliseconds: int) -> Reply:
    """Check a compiled candidate against the reference, then measure it: seconds of a call, one value a repeat."""
    from tvmcompress.passes._tvm import tvm

    arrays = _arrays(data)
    loaded = tvm.runtime.load_module(library)
    tensors = [tvm.runtime.tensor(array) for array in arrays["inputs"]]
    output = tvm.runtime.tensor(poisoned(arrays["output"]))
    loaded["main"](*tensors, output)
    problem = difference(output.numpy(), arrays["expected"], tolerance)
    if problem is None and not all(
        np.array_equal(tensor.numpy(), array, equal_nan=array.dtype.kind == "f")
        for tensor, array in zip(tensors, arrays["inputs"], strict=True)
    ):
        problem = "it overwrote an input"
    if problem is not None:
        return "wrong", problem
    return "ok", _times(loaded["main"], [*arrays["inputs"], arrays["output"]], repeat, milliseconds / 1e3)


_AWAY = 256 * 1024
"""Bytes of arguments that take turns: they leave the first-level cache between two calls, as in a model between two runs."""


def _times(function: Callable[..., Any], arrays: list[np.ndarray], repeat: int, seconds: float) -> list[float]:
    """Seconds of a call: the mean over `seconds`, `repeat` times; constants come from where they are in a whole model."""
    from tvmcompress.passes._tvm import tvm

    # With one thread its own time, which does not run while others have the core.
    clock = time.thread_time if os.environ.get("TVM_NUM_THREADS") == "1" else time.perf_counter
    copies = min(32, max(1, -(-_AWAY // sum(array.nbytes for array in arrays))))
    sets = [[tvm.runtime.tensor(array) for array in arrays] for _ in range(copies)]

    def passes(count: int) -> float:
        start = clock()
        for _ in range(count):
            for arguments in sets:
                function(*arguments)
        return clock() - start

    passes(1)
    count = max(1, round(seconds / max(passes(1), 1e-6)))
    return [passes(count) / (count * copies) for _ in range(repeat)]


def difference(got: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    """What is wrong with an output, None when nothing is.

    Integers must be equal; floats may differ by `tolerance` times the largest magnitude of the reference.
    """
    if expected.dtype.kind != "f":
        count = int(np.count_nonzero(got != expected))
        return f"{count} of {expected.size} integers differ from the reference" if count else None
    finite = np.isfinite(expected)
    if not np.array_equal(np.isfinite(got), finite) or not np.array_equal(got[~finite], expected[~finite], equal_nan=True):
        return "infinities or NaN differ from the reference"
    if not finite.any():
        return None
    error = float(np.abs(got[finite] - expected[finite]).max())
    allowed = tolerance * max(float(np.abs(expected[finite]).max()), 1e-6)
    return f"the largest error against the reference is {error:.3g}, allowed is {allowed:.3g}" if error > allowed else None


def poisoned(template: np.ndarray) -> np.ndarray:
    """An output whose old content shows wherever a candidate does not write."""
    if template.dtype.kind == "f":
        return np.full_like(template, np.nan)
    return np.frombuffer(b"\xa5" * template.nbytes, template.dtype).reshape(template.shape).copy()


_CACHE: dict[str, dict[str, Any]] = {}


def _arrays(data: str) -> dict[str, Any]:
    if data not in _CACHE:
        _CACHE.clear()
        with np.load(data) as file:
            count = sum(name.startswith("arr_") for name in file.files)
            _CACHE[data] = {"inputs": [file[f"arr_{index}"] for index in range(count)], "output": file["output"]}
            if "expected" in file.files:
                _CACHE[data]["expected"] = file["expected"]
    return _CACHE[data]


def _json(text: str) -> Any:
    import json

    return json.loads(text)


_COMMANDS: dict[str, Callable[..., Reply]] = {"build": build, "reference": reference, "run": run}


def _serve(requests: Readable, replies: IO[bytes]) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            command, arguments, limit = read_frame(requests)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            reply = _COMMANDS[command](*arguments)
        except Exception as error:
            reply = ("error", _summary(error))
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(replies, reply)


def _summary(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else 'no message'}"


def _outcome(status: int, limit_signal: int = signal.SIGALRM) -> Reply:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == limit_signal:
            return "timeout", "it ran past its time limit"
        return "crash", f"it was killed by {signal.Signals(number).name}"
    return "crash", f"it ended the process with status {os.WEXITSTATUS(status)}"


def main() -> None:
    """Serve until the requests, or the process that was named as the argument, end."""
    from tvmcompress.targets.children import die_with_parent

    die_with_parent(int(sys.argv[1]))
    own = os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a library prints must not get between the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Unbuffered: a child that dies must not have read ahead.
    requests = io.FileIO(os.dup(0))
    import tvmcompress.passes._tvm  # noqa: F401

    write_frame(replies, ("ok", os.getpid()))
    while True:
        child = os.fork()
        if child == 0:
            die_with_parent(own)
            _serve(_Whole(requests), replies)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        write_frame(replies, _outcome(status))


class _Whole:
    """A raw stream whose `read` returns as many bytes as asked for, as buffered ones do, without reading ahead."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self, count: int, /) -> bytes:
        parts = []
        while count > 0:
            part = self._raw.read(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


if __name__ == "__main__":
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    main()
