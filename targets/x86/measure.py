"""Latency on this machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ...passes._tvm import tvm
from ...passes.errors import UserError
from ..measurement import Latency
from ..objects import available_cpus

_THREADS = "TVM_NUM_THREADS"
FASTEST_CORES = 1
"""TVM's affinity mode: the fastest cores first, where they differ."""


@contextlib.contextmanager
def thread_limit(threads: int | None) -> Iterator[int]:
    """Let TVM's kernels use so many threads inside the block; None leaves what is set.

    Raises:
        UserError: Not a positive number, or more than this process may use.
    """
    most = available_cpus()
    if threads is None:
        yield most
        return
    if not 1 <= threads <= most:
        raise UserError(f"{threads} threads were asked for; this process may use 1 to {most}")
    # TVM looks at the variable at every launch: with one thread it calls the kernel directly. The pool itself is made
    # once, for as many threads as the variable then says; afterwards only how many of them are used can be set.
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = str(most if threads > 1 else 1)
    if threads > 1:
        tvm.get_global_func("runtime.config_threadpool")(FASTEST_CORES, threads)
    try:
        yield threads
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


def measure_latency(
    machine: Any,
    inputs: Sequence[Any],
    runs: int = 200,
    warm_up: int = 20,
    threads: int | None = 1,
    duration: float | None = None,
) -> Latency:
    """Time single inferences one after another.

    Args:
        machine: A `relax.VirtualMachine` with `main`.
        inputs: Its inputs as TVM tensors.
        runs: How many are timed.
        warm_up: How many run before, not timed: caches, page faults, clock frequency.
        threads: How many threads kernels may use.
        duration: Seconds for which to go on, in rounds of `runs`, the last of which is finished.

    Raises:
        UserError: `runs` is not positive, `warm_up` is negative, or there are not so many threads.
    """
    if runs < 1 or warm_up < 0:
        raise UserError(f"{runs} runs and {warm_up} warm-up runs were asked for; give at least 1 and 0")
    with thread_limit(threads) as used:
        function = machine["main"]
        for _ in range(warm_up):
            function(*inputs)
        evaluate = machine.time_evaluator("main", tvm.cpu(), number=1, repeat=runs)
        end = time.monotonic() + (duration or 0.0)
        rounds = [np.asarray(evaluate(*inputs).results) * 1e3]
        while time.monotonic() < end:
            rounds.append(np.asarray(evaluate(*inputs).results) * 1e3)
    return Latency.of(np.concatenate(rounds), used)
