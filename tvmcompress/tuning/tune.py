"""The tuning run: for each function of a model, which candidates to try next, and what to write down."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tvm.s_tir import meta_schedule as ms

from ..model import Model
from ..passes._tvm import tvm
from ..passes.errors import UserError
from ..targets.integer_io import is_integer
from ..targets.registry import get_target
from ..targets.trials.tunable import TunableTarget as KernelTarget
from ..targets.tuning_log import FAILED_SECONDS, TuningLog, default_logs, trace_key, user_log_directory
from ..targets.x86.space import X86Tuning
from .builder import WorkerBuilder, target_json
from .cost_model import CostModel
from .kernels import tune_kernels
from .process import WorkerPool
from .progress import OnProgress, TaskResult, TuningProgress, TuningResult
from .runner import CheckingRunner
from .tasks import TunableTarget, TuningTask, extract_tasks, task_inputs
from .whole_model import executable, seconds_of_model

_BATCH = 8
_FINALISTS = 3
_FINAL_ROUNDS = 5
_EXPLORE = 0.25
"""Share of each batch that is drawn at random, whatever the cost model thinks."""

_NOISE = 0.02
"""Difference of two medians that says nothing."""

_PREDICTED = 96
"""Candidates that the cost model ranks for one batch; extracting their features is what takes time."""


def tune(
    model: Model | tvm.IRModule,
    target: str | TunableTarget = "x86",
    trials: int = 200,
    database_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    time_limit: float | None = None,
    retune: bool = False,
    workers: int | None = None,
    tolerance: float = 1e-4,
    candidate_limit: float = 10.0,
) -> TuningResult:
    """Search for fast schedules of a model's functions and keep them in a tuning log, which every later build reads.

    Every candidate is compiled and run in a process of its own, compared with the unscheduled function on the same
    inputs, and only then timed. The next candidates are chosen by MetaSchedule's gradient-boosted cost model (XGBoost),
    trained on what was measured so far. Functions that a log knows are not tried again. A run that is interrupted keeps
    what it has measured; the next one goes on there.

    Args:
        model: A model, or its module with the parameter values attached: float, or integer.
        target: The name of a target, or an object that says how to lower and what to try. On x86 schedules are tried and
            timed; on Cortex-M and Cortex-A an integer model's kernels, whose instructions an emulator counts.
        trials: Candidates to measure in total; functions with more work get more of them.
        database_dir: The log's folder; see `tvmcompress.targets.tuning_log.user_log_directory` for the default.
        seed: Of the inputs and of the candidates that are drawn at random. Timings differ from run to run all the same.
        on_progress: Called after every batch.
        time_limit: Seconds after which no new batch is started.
        retune: Try functions again that the log knows.
        workers: Processes that compile; by default one for every CPU.
        tolerance: Allowed error of floats, relative to the largest magnitude of the reference; integers must be equal.
        candidate_limit: Seconds that running one candidate may take; slower ones do not count.

    Returns:
        What was tried and found, function by function.

    Raises:
        UserError: No such target, not a positive number of trials, a damaged log, or one that cannot be written.
        KeyboardInterrupt: Passed on; everything measured before it is in the log.
    """
    if trials < 1:
        raise UserError(f"{trials} tuning trials were asked for; give at least 1")
    if isinstance(target, str) and isinstance(described := get_target(target), KernelTarget):
        described.require_tools()
        core = described.description.core
        directory = Path(database_dir) if database_dir is not None else user_log_directory(core)
        log, known = TuningLog(directory), default_logs(core, directory)
        mod = _integer(model, described)
        return tune_kernels(
            mod, described, trials, log, known, seed=seed, on_progress=on_progress, time_limit=time_limit, retune=retune
        )
    tunable = _tunable(target)
    start = time.monotonic()
    directory = Path(database_dir) if database_dir is not None else user_log_directory(tunable.name)
    log = TuningLog(directory)
    known = default_logs(tunable.name, directory)
    mod = model.module if isinstance(model, Model) else model
    if isinstance(target, str):
        mod = executable(mod)
    tasks = extract_tasks(mod, tunable)
    results = [TaskResult(task.name, task.calls) for task in tasks]
    open_tasks = []
    for task, result in zip(tasks, results, strict=True):
        record = None if retune or _marker(directory, task).exists() else _known(known, task.mod)
        if record is None:
            open_tasks.append((task, result))
        else:
            result.reused = result.finished = True
            result.best_cost = _seconds(record)
    outcome = TuningResult(results, str(directory))
    deadline = None if time_limit is None else start + time_limit
    shares = allot([task for task, _ in open_tasks], trials)
    size = workers or max(1, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="tvmcompress-tuning-") as folder, WorkerPool(size, tunable.threads) as pool:
        costs = CostModel(seed)
        builder = WorkerBuilder(pool, Path(folder))
        spent = 0
        for number, (task, result) in enumerate(open_tasks, start=1):
            if deadline is not None and time.monotonic() >= deadline:
                outcome.stopped = "time limit"
                break
            search = _Search(task, result, tunable, log, costs, builder, seed, tolerance, candidate_limit)
            state = _Place(number, len(open_tasks), spent, sum(shares))
            search.run(shares[number - 1], state, on_progress, deadline)
            spent += result.trials
    if any(not result.finished for result in results) and deadline is not None:
        outcome.stopped = "time limit"
    if isinstance(target, str) and tasks:
        outcome.model_default, outcome.model_best = seconds_of_model(mod, directory, tunable.threads)
    outcome.seconds = time.monotonic() - start
    return outcome


def allot(tasks: Sequence[TuningTask], trials: int) -> list[int]:
    """How many of `trials` each task gets: by the square root of its work, never more than it has candidates."""
    sizes = [len(task.points) for task in tasks]
    weights = [float(np.sqrt(task.work * task.calls)) for task in tasks]
    shares = [0] * len(tasks)
    left = trials
    while left > 0:
        hungry = [i for i in range(len(tasks)) if shares[i] < sizes[i]]
        if not hungry:
            break
        total = sum(weights[i] for i in hungry)
        before = left
        for i in hungry:
            extra = min(sizes[i] - shares[i], int(before * weights[i] / total), left)
            shares[i] += extra
            left -= extra
        if left == before:
            # Fewer trials left than tasks: one each, those with most work first.
            for i in sorted(hungry, key=lambda i: -weights[i])[:left]:
                shares[i] += 1
                left -= 1
    return shares


@dataclass(frozen=True)
class _Place:
    """Where in the whole run a task stands."""

    number: int
    tasks: int
    spent: int
    trials: int


class _Search:
    """The search for one task."""

    def __init__(
        self,
        task: TuningTask,
        result: TaskResult,
        target: TunableTarget,
        log: TuningLog,
        model: CostModel,
        builder: WorkerBuilder,
        seed: int,
        tolerance: float,
        limit: float,
    ) -> None:
        self.task = task
        self.result = result
        self.target = target
        self.log = log
        self.model = model
        self.builder = builder
        self.worker = builder.pool.workers[0]
        self.seed = seed
        self.tolerance = tolerance
        self.limit = limit
        self.arguments = ms.arg_info.ArgInfo.from_prim_func(task.mod["main"])
        self.context = ms.TuneContext(task.mod, target=target.target, task_name=task.name, rand_state=seed + 1, num_threads=1)
        self.random = np.random.default_rng([seed, len(task.points), task.work])
        self.measured: list[tuple[float, int]] = []
        """(seconds, index of the point) of what ran and was right."""
        self.libraries: dict[int, str] = {}

    def run(self, trials: int, place: _Place, on_progress: OnProgress | None, deadline: float | None) -> None:
        """Try up to `trials` candidates, then measure the best again in turns."""
        marker = _marker(self.log.directory, self.task)
        _touch(marker)
        runner = CheckingRunner(self.worker, self._reference(), self.tolerance, self.limit)
        left = self._resume()
        while self.result.trials < trials and left:
            if deadline is not None and time.monotonic() >= deadline:
                break
            batch = self._choose(left, min(_BATCH, trials - self.result.trials))
            left = [index for index in left if index not in batch]
            self._measure(batch, runner)
            if on_progress is not None:
                on_progress(self._progress(trials, place))
        else:
            self.result.finished = True
        self._finals(runner)
        if self.result.finished:
            marker.unlink(missing_ok=True)

    def _resume(self) -> list[int]:
        """The points not tried yet, the default first, the others shuffled; earlier measurements are taken over."""
        tried = self.log.measured(self.task.mod)
        left = []
        for index, point in enumerate(self.task.points):
            trace = self.target.candidate(self.task.mod, point).trace if tried else None
            seconds = None if trace is None else tried.get(trace_key(self.task.mod, trace))
            if seconds is None:
                left.append(index)
            elif seconds < FAILED_SECONDS:
                self.measured.append((seconds, index))
        head = left[:1]
        rest = np.array(left[1:], dtype=int)
        self.random.shuffle(rest)
        return [*head, *(int(index) for index in rest)]

    def _choose(self, left: list[int], count: int) -> list[int]:
        """The next points: random ones until the cost model knows something, then mostly those it likes best."""
        if len(left) <= count or not self.measured:
            return left[:count]
        pool = left[:_PREDICTED]
        scores = self.model.predict(self.context, [self._candidate(index) for index in pool])
        ranked = [pool[int(i)] for i in np.argsort(-scores, kind="stable")]
        explored = left[: int(count * _EXPLORE)]
        best = [index for index in ranked if index not in explored]
        return explored + best[: count - len(explored)]

    def _candidate(self, index: int) -> ms.MeasureCandidate:
        schedule = self.target.candidate(self.task.mod, self.task.points[index])
        return ms.MeasureCandidate(schedule, self.arguments)

    def _measure(self, batch: list[int], runner: CheckingRunner) -> None:
        candidates = [self._candidate(index) for index in batch]
        inputs = [ms.builder.BuilderInput(candidate.sch.mod, self.target.target) for candidate in candidates]
        outcomes = []
        for index, candidate, built in zip(batch, candidates, self.builder.build(inputs), strict=True):
            if built.error_msg is not None:
                runner.outcomes[str(built.error_msg).partition(":")[0]] += 1
                outcome = ms.runner.RunnerResult(None, built.error_msg)
            else:
                self.libraries[index] = str(built.artifact_path)
                outcome = runner.measure(self.libraries[index])
            outcomes.append(outcome)
            self._record(index, candidate, outcome)
            self.result.trials += 1
            self.result.outcomes = dict(runner.outcomes)
        self.model.add(self.context, candidates, outcomes)
        self._drop_libraries()

    def _record(self, index: int, candidate: ms.MeasureCandidate, outcome: ms.runner.RunnerResult) -> None:
        times = [] if outcome.run_secs is None else [float(value) for value in outcome.run_secs]
        # The median of a few: one interruption by the system must not condemn a candidate.
        times = [float(np.median(times))] if times else []
        self.log.append(self.task.mod, candidate.sch.trace, times, self.target.log_target, self.arguments)
        if times:
            self.measured.append((times[0], index))
            self.result.best_cost = min(self.measured)[0]
            if index == 0:
                self.result.default_cost = times[0]
        elif self.result.reason is None:
            self.result.reason = str(outcome.error_msg)

    def _finals(self, runner: CheckingRunner) -> None:
        """Measure the best three, and the default, again in turns: single timings mislead."""
        best = [index for _, index in sorted(self.measured)]
        finalists = list(dict.fromkeys([*best[:_FINALISTS], *([0] if 0 in best else [])]))
        if not finalists or not self.result.trials:
            return
        missing = [index for index in finalists if index not in self.libraries]
        inputs = [ms.builder.BuilderInput(self._candidate(index).sch.mod, self.target.target) for index in missing]
        for index, built in zip(missing, self.builder.build(inputs), strict=True):
            if built.error_msg is None:
                self.libraries[index] = str(built.artifact_path)
        times: dict[int, list[float]] = {index: [] for index in finalists if index in self.libraries}
        for _ in range(_FINAL_ROUNDS):
            for index, values in times.items():
                outcome = runner.measure(self.libraries[index])
                if outcome.run_secs is not None:
                    values.append(float(np.median([float(value) for value in outcome.run_secs])))
        medians = {index: float(np.median(values)) for index, values in times.items() if values}
        if medians and medians.get(0, np.inf) <= (1 + _NOISE) * min(medians.values()):
            # Nothing is really faster than the default, which then is the only one with a second measurement.
            medians = {0: medians[0]}
        for index, seconds in medians.items():
            trace = self._candidate(index).sch.trace
            self.log.append(self.task.mod, trace, [seconds], self.target.log_target, self.arguments)
        if medians:
            self.result.best_cost = min(medians.values())
            self.result.default_cost = medians.get(0, self.result.default_cost)

    def _reference(self) -> Path:
        """The file with inputs and what the unscheduled function makes of them."""
        data = self.builder.directory / f"task{next(self.builder.count)}.npz"
        module, target = tvm.ir.save_json(self.task.mod), target_json(self.target.target)
        for positive in (False, True):
            inputs, output = task_inputs(self.task, self.seed, positive)
            np.savez(data, *inputs, output=output)
            status, value = self.worker.call("reference", module, target, str(data), limit=120.0)
            if status != "ok":
                raise RuntimeError(f"the reference of {self.task.name} could not be computed ({status}: {value})")
            if value:
                break
        return data

    def _drop_libraries(self) -> None:
        """Keep only what the finals may need."""
        keep = {index for _, index in sorted(self.measured)[:_FINALISTS]} | {0}
        for index in [index for index in self.libraries if index not in keep]:
            Path(self.libraries.pop(index)).unlink(missing_ok=True)

    def _progress(self, trials: int, place: _Place) -> TuningProgress:
        result = self.result
        return TuningProgress(
            task=result.name,
            task_number=place.number,
            tasks=place.tasks,
            trial=result.trials,
            task_trials=min(trials, len(self.task.points)),
            total_trial=place.spent + result.trials,
            total_trials=place.trials,
            best_cost=result.best_cost,
            default_cost=result.default_cost,
            rejected=result.rejected,
        )


def _integer(model: Model | tvm.IRModule, target: KernelTarget) -> tvm.IRModule:
    """The model in integer operators, which are what kernels compute."""
    mod = model.module if isinstance(model, Model) else model
    if not target.kernel_passes():
        raise UserError(f"{target.description.name} has no kernels of its own that could be tuned")
    mod = executable(mod)
    if not is_integer(mod):
        raise UserError(f"{target.description.name} has kernels to tune for integer models only; quantize it first")
    return mod


def _tunable(target: str | TunableTarget) -> TunableTarget:
    if not isinstance(target, str):
        return target
    return X86Tuning()


def _known(logs: Sequence[TuningLog], mod: tvm.IRModule) -> Any | None:
    return next((record for log in logs if (record := log.best(mod)) is not None), None)


def _seconds(record: Any) -> float:
    times = [float(value) for value in record.run_secs]
    return sum(times) / len(times)


def _marker(directory: Path, task: TuningTask) -> Path:
    """A file that is there while a task is being tuned, and stays when that is interrupted."""
    import tvm_ffi

    return directory / f".unfinished-{tvm_ffi.structural_hash(task.mod) % (1 << 64):016x}"


def _touch(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(f"the tuning log {path.parent} cannot be written ({error.strerror}); give another folder") from error
