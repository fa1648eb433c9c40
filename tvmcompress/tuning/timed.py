"""Searches by time: single timings mislead.

So a search ends with rounds in which the best candidates and the default take turns, and one that is not faster by more than
the noise is not taken.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..passes._tvm import tvm
from ..passes.errors import UserError
from ..targets.kernels.decisions import Decisions, point_key
from ..targets.kernels.records import append, final_decisions
from ..targets.tuning_log import FAILED_SECONDS, TuningLog
from .search import Bench, Task

_FINALISTS = 4
FINAL_ROUNDS = 9
_MARGIN = 0.02
"""Share of the default's time that is noise."""


class TimedBench(Bench):
    """Measures seconds.

    Args:
        log: Where to write.
    """

    unit = "s"
    least_gain = 0.01

    def __init__(self, log: TuningLog) -> None:
        self._log = log

    @abstractmethod
    def rounds(self, task: Task, points: Sequence[Decisions]) -> dict[str, list[float]]:
        """Times of points in turns, by `point_key`, not a number where one failed; without those that cannot be compiled."""

    def begin(self, task: Task) -> None:
        """Note that a search of a task has begun.

        Raises:
            UserError: The log cannot be written.
        """
        _touch(self._marker(task))

    def settled(self, task: Task, mod: tvm.IRModule) -> bool:
        """Whether a search of this task came to its end."""
        return task.default is not None and not self._marker(task).exists()

    def finish(self, task: Task, mod: tvm.IRModule) -> None:
        """Measure the best, and the default, again in turns."""
        costs = {key: cost for key, cost in task.costs().items() if cost < FAILED_SECONDS}
        default = task.choice.default
        if point_key(default) in costs:
            by_key = {point_key(point): point for point in task.space}
            ranked = [by_key[key] for key in sorted(costs, key=costs.__getitem__) if key in by_key]
            finalists = [default, *(point for point in ranked if point_key(point) != point_key(default))][: _FINALISTS + 1]
            self._finals(task, mod, finalists)
        if task.result.finished:
            self._marker(task).unlink(missing_ok=True)

    def taken(self, task: Task, mod: tvm.IRModule, logs: Sequence[TuningLog]) -> Decisions | None:
        """What the rounds in turns ended with."""
        return final_decisions(logs, mod, task.choice.default)

    def _finals(self, task: Task, mod: tvm.IRModule, points: Sequence[Decisions]) -> None:
        times = self.rounds(task, points)
        default = point_key(points[0])
        if default not in times or np.isnan(times[default]).any():
            return
        least = {key: float(np.min(values)) for key, values in times.items()}
        measured = {key: np.array(values) for key, values in times.items()}
        keys = {point_key(point): point for point in points[1:]}
        faster = [keys[key] for key in measured if key in keys and is_faster(measured[key], measured[default])]
        best = min(faster, key=lambda point: least[point_key(point)], default=points[0])
        for point in {default: points[0], point_key(best): best}.values():
            record = replace(task.known[point_key(point)], cost=least[point_key(point)])
            append(self._log, mod, record, self.log_target)

    def _marker(self, task: Task) -> Path:
        """A file that is there while a task is being tuned, and stays when that is interrupted."""
        digest = hashlib.sha256(f"{self.core} {task.choice.workload.key}".encode()).hexdigest()
        return self._log.directory / f".unfinished-{digest[:16]}"


def is_faster(times: np.ndarray, default: np.ndarray) -> bool:
    """Whether rounds in turns show more than noise: the median of the ratios, three of four rounds, and the least of all."""
    ratios = times / default
    most = 1 - _MARGIN
    return bool(np.median(ratios) < most and np.percentile(ratios, 75) < 1 and times.min() < most * default.min())


def _touch(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(f"the tuning log {path.parent} cannot be written ({error.strerror}); give another folder") from error
