"""Schedules of x86 functions as tasks of the tuner: compiled, checked and timed in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..passes._tvm import tvm
from ..targets.kernels.decisions import Choice, Decisions, point_key
from ..targets.trials.builders import Builders
from ..targets.tuning_log import TuningLog
from ..targets.x86.layer import NotScheduledError
from ..targets.x86.tuning import X86Tuning
from .process import WorkerPool
from .search import Measured, Task
from .tasks import Function, function_inputs
from .timed import FINAL_ROUNDS, TimedBench
from .worker import Reply

REPEAT, _MILLISECONDS = 5, 4
_BUILD_LIMIT = 30.0


class TimingBench(TimedBench):
    """Times schedules on this machine.

    Args:
        target: What to compile for.
        pool: The worker processes.
        folder: For libraries and data.
        log: Where to write.
        seed: Of the inputs.
        tolerance: Allowed error of floats, relative to the largest magnitude of the reference; integers must be equal.
        limit: Seconds that running one candidate may take.
    """

    batch = 8

    def __init__(
        self, target: X86Tuning, pool: WorkerPool, folder: Path, log: TuningLog, seed: int, tolerance: float, limit: float
    ) -> None:
        super().__init__(log)
        self.core, self.log_target = target.core, target.log_target
        self._target, self._pool, self._folder = target, pool, folder
        self._seed, self._tolerance, self._limit = seed, tolerance, limit
        self._json = json.dumps(json.loads(str(target.target)))
        self._here = self._json
        """The target that the reference is compiled for."""
        self._data: dict[int, Path] = {}
        self._libraries: dict[tuple[int, str], Path] = {}
        self._count = 0
        self.builders: Builders | None = None
        """Which machines compile; this one where there are none."""

    def measure(self, task: Task, points: Sequence[Decisions]) -> list[Measured]:
        """Compile points of a task, then check and time them one after another."""
        self.begin(task)
        built = self.prepare(task, points)
        timed = iter(self.times(task, [point for point, found in zip(points, built, strict=True) if found is None]))
        return [next(timed) if found is None else found for found in built]

    def share_of_peak(self, task: Task) -> float | None:
        """Of the machine's multiply-accumulates, where that is known."""
        peak = self.peak(task.choice)
        return task.work / task.best / peak if peak is not None and task.best else None

    def peak(self, choice: Choice) -> float | None:
        """What the machine does at most of a workload's product, a second; None where that is not known."""
        return self._target.peak(choice)

    def rounds(self, task: Task, points: Sequence[Decisions]) -> dict[str, list[float]]:
        """Times of points in turns; what they were compiled to is not needed any more."""
        self.prepare(task, [point for point in points if self.library(task, point) is None])
        times = self.turns(task, [point for point in points if self.library(task, point) is not None])
        for made in [made for made in self._libraries if made[0] == id(task)]:
            self._libraries.pop(made).unlink(missing_ok=True)
        return times

    def turns(self, task: Task, points: Sequence[Decisions]) -> dict[str, list[float]]:
        """Times of compiled points in turns, not a number where one failed."""
        times: dict[str, list[float]] = {point_key(point): [] for point in points}
        for _ in range(FINAL_ROUNDS):
            for point in points:
                cost = self.time(task, point).cost
                times[point_key(point)].append(np.nan if cost is None else cost)
        return times

    def prepare(self, task: Task, points: Sequence[Decisions]) -> list[Measured | None]:
        """Compile points; None for each that has a library now."""
        function: Function = task.subject
        outcomes: list[Measured | None] = []
        requests: list[tuple[str, str, str]] = []
        for point in points:
            try:
                mod = self._target.schedule(function.mod, point).mod
            except NotScheduledError as reason:
                outcomes.append(Measured("error", reason=str(reason)))
                continue
            self._count += 1
            path = self._folder / f"candidate{self._count}.so"
            requests.append((tvm.ir.save_json(mod), self._json, str(path)))
            self._libraries[id(task), point_key(point)] = path
            outcomes.append(None)
        replies = iter(self._built(requests))
        for index, point in enumerate(points):
            if outcomes[index] is None:
                status, value = next(replies)
                if status != "ok":
                    del self._libraries[id(task), point_key(point)]
                    outcomes[index] = Measured(status, reason=str(value))
        return outcomes

    def _built(self, requests: Sequence[tuple[str, str, str]]) -> list[Reply]:
        """What came of compiling modules: on other machines, or here where none is left."""
        found = {} if self.builders is None else self.builders.libraries(requests)
        left = [number for number in range(len(requests)) if number not in found]
        found.update(zip(left, self._pool.map("build", [requests[number] for number in left], _BUILD_LIMIT)))
        return [found[number] for number in range(len(requests))]

    def library(self, task: Task, point: Decisions) -> Path | None:
        """What a point was compiled to; None where it was not, or could not be."""
        return self._libraries.get((id(task), point_key(point)))

    def times(self, task: Task, points: Sequence[Decisions]) -> list[Measured]:
        """Check and time compiled points."""
        return [self.time(task, point) for point in points]

    def time(self, task: Task, point: Decisions) -> Measured:
        """Check and time a compiled point."""
        arguments = (str(self.library(task, point)), str(self.reference(task)), self._tolerance, REPEAT, _MILLISECONDS)
        status, value = self._pool.workers[0].call("run", *arguments, limit=self._limit)
        # The least: whatever else the machine does can only add.
        return Measured(status, min(value)) if status == "ok" else Measured(status, reason=str(value))

    def reference(self, task: Task) -> Path:
        """The file with inputs and what the unscheduled function makes of them."""
        if id(task) in self._data:
            return self._data[id(task)]
        function: Function = task.subject
        data = self._folder / f"task{len(self._data)}.npz"
        for positive in (False, True):
            inputs, output = function_inputs(function, self._seed, positive)
            np.savez(data, *inputs, output=output)
            module = tvm.ir.save_json(function.mod)
            status, value = self._pool.workers[0].call("reference", module, self._here, str(data), limit=120.0)
            if status != "ok":
                raise RuntimeError(f"the reference of {function.name} could not be computed ({status}: {value})")
            if value:
                break
        self._data[id(task)] = data
        return data
