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
from ..targets.micro.trial_board import CortexMBoard
from ..targets.remote.artifact import RemoteArtifact
from ..targets.remote.boards import Boards
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


def cycles_of_model(
    mod: tvm.IRModule, target: TunableTarget, logs: Sequence[TuningLog], board: CortexMBoard
) -> tuple[float, float]:
    """Cycles of an inference of an integer module on a microcontroller, without and with what logs know.

    Raises:
        UserError: The board has no room for the model, or does not answer commands.
        ToolError: It cannot be flashed.
    """
    found = []
    with _builds(mod, target, list(logs)) as artifacts:
        for artifact in artifacts:
            with board.running(artifact) as on_board:
                latency = on_board.measure().latency
                assert latency is not None
                found.append(round(latency.median_ms * on_board.clock_hz / 1e3))
    without, with_logs = map(float, found)
    return without, with_logs


def seconds_of_model(
    mod: tvm.IRModule, target: Target, log: LogChoice, threads: int, boards: Boards | None = None
) -> tuple[float, float]:
    """Seconds of an inference on this machine, or on boards, without and with what a log knows.

    Rounds in turns: the median of the first, and the median ratio of the two in one round.

    Raises:
        RemoteFailure: The model failed on a board.
        BoardsLostError: All boards are lost.
    """
    times: list[list[float]] = [[], []]
    options = {} if boards is None else boards.do(target.remote_options, "asking a board for its CPU")
    with _builds(mod, target, log, threads=threads, **options) as built:
        artifacts = built if boards is None else [_on(boards, target, artifact) for artifact in built]
        for _ in range(_ROUNDS):
            for found, artifact in zip(times, artifacts):
                latency = artifact.measure(threads=threads, runs=_RUNS).latency
                assert latency is not None
                # Whatever else the machine does can only add.
                found.append(latency.p10_ms / 1e3)
    without, ratio = float(np.median(times[0])), float(np.median(np.array(times[1]) / np.array(times[0])))
    return without, without * ratio


def _on(boards: Boards, target: Target, artifact: Artifact) -> Artifact:
    return RemoteArtifact(target.remote_program(artifact.path), boards)


@contextmanager
def _builds(mod: tvm.IRModule, target: Target, choice: LogChoice, **options: Any) -> Iterator[list[Artifact]]:
    """The model built without a log and with one."""
    choices: list[LogChoice] = [False, choice]
    with tempfile.TemporaryDirectory(prefix="tvmcompress-tuning-") as folder:
        yield [target.build(mod, Path(folder) / f"build{i}", tuning_log=log, **options) for i, log in enumerate(choices)]
