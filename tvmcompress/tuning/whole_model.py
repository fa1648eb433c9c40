"""A whole model without and with what tuning found: what counts in the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..passes._tvm import tvm
from ..passes.lowering.lower_qdq import LowerQDQ, needs_lowering
from ..targets.base import Artifact, Target
from ..targets.registry import get_target
from ..targets.trials.tunable import TunableTarget
from ..targets.tuning_log import LogChoice, TuningLog

_ROUNDS, _RUNS = 9, 100


def executable(mod: tvm.IRModule) -> tvm.IRModule:
    """A module as builds take it: one in QDQ form in integer operators."""
    return tvm.transform.Sequential([LowerQDQ()])(mod) if needs_lowering(mod) else mod


def instructions_of_model(mod: tvm.IRModule, target: TunableTarget, logs: Sequence[TuningLog]) -> tuple[float, float]:
    """Executed instructions of an integer module without and with what logs know."""
    options = {"check_memory": False} if target.description.family == "cortex-m" else {}
    with _builds(mod, target, list(logs), **options) as artifacts:
        without, with_logs = (float(artifact.measure().instructions or 0) for artifact in artifacts)
    return without, with_logs


def seconds_of_model(mod: tvm.IRModule, log: Path, threads: int) -> tuple[float, float]:
    """Seconds of an inference on this machine without and with what a log knows.

    Rounds in turns: the median of the first, and the median ratio of the two in one round.
    """
    times: list[list[float]] = [[], []]
    with _builds(mod, get_target("x86"), log, threads=threads) as artifacts:
        for _ in range(_ROUNDS):
            for found, artifact in zip(times, artifacts):
                latency = artifact.measure(threads=threads, runs=_RUNS).latency
                assert latency is not None
                # Whatever else the machine does can only add.
                found.append(latency.p10_ms / 1e3)
    without, ratio = float(np.median(times[0])), float(np.median(np.array(times[1]) / np.array(times[0])))
    return without, without * ratio


@contextmanager
def _builds(mod: tvm.IRModule, target: Target, choice: LogChoice, **options: Any) -> Iterator[list[Artifact]]:
    """The model built without a log and with one."""
    choices: list[LogChoice] = [False, choice]
    with tempfile.TemporaryDirectory(prefix="tvmcompress-tuning-") as folder:
        yield [target.build(mod, Path(folder) / f"build{i}", tuning_log=log, **options) for i, log in enumerate(choices)]
