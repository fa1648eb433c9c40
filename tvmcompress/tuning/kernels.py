"""Tuning the kernels of a core under its emulator: which decisions to try next, and what to write down.

Costs are executed instructions, which are exact: nothing has to be measured twice. Every candidate is compared with the
operator's NumPy meaning, beside its own memory too, before its count is taken.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..passes._tvm import tvm
from ..targets.kernels.decisions import Decisions, layer_name, point_key
from ..targets.kernels.records import KernelRecord, append, read, workload_module, workload_of
from ..targets.kernels.use_kernels import Site
from ..targets.trials.image import measure
from ..targets.trials.site import SiteTrials
from ..targets.trials.trial import Outcome
from ..targets.trials.tunable import TunableTarget
from ..targets.tuning_log import TuningLog
from .decision_model import DecisionModel
from .progress import OnProgress, TaskResult, TuningProgress, TuningResult
from .whole_model import instructions_of_model

_BATCH = 16
_EXPLORE = 0.25
"""Share of each batch that is drawn at random, whatever the cost model thinks."""
_PATIENCE = 3
"""Batches without a gain after which a layer is done."""
_LEAST_GAIN = 0.002
"""Of a layer's cost: less is no gain."""


@dataclass
class _Task:
    """A workload, and what is known of its points."""

    site: Site
    calls: int
    mod: tvm.IRModule
    result: TaskResult
    trials: SiteTrials
    known: dict[str, KernelRecord] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    stale: int = 0

    @property
    def space(self) -> Sequence[Decisions]:
        """The points, the default first."""
        return self.site.choice.space

    def costs(self) -> dict[str, int]:
        """Instructions of the points that ran and were right."""
        return {key: r.instructions for key, r in self.known.items() if r.instructions is not None}

    @property
    def default(self) -> int | None:
        """Instructions of the default."""
        return self.costs().get(point_key(self.site.choice.default))

    @property
    def best(self) -> int | None:
        """Instructions of the best point of the space."""
        costs = self.costs()
        return min((costs[key] for point in self.space if (key := point_key(point)) in costs), default=None)

    @property
    def expected(self) -> float:
        """Instructions of the whole model that another batch may still save: less with each that saved none."""
        return self.calls * (self.best or 0) * 0.5**self.stale


def tune_kernels(
    mod: tvm.IRModule,
    target: TunableTarget,
    trials: int,
    log: TuningLog,
    known: Sequence[TuningLog],
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    time_limit: float | None = None,
    retune: bool = False,
) -> TuningResult:
    """Search for the decisions of fewest instructions; see `tune.tune`.

    Args:
        mod: An integer module, parameters attached.
        target: A Cortex-M or Cortex-A target with kernels of its own.
        trials: Candidates to measure in total.
        log: Where to write.
        known: The logs whose records count as measured.
        seed: Of the inputs and of what is drawn at random.
        on_progress: Called after every batch.
        time_limit: Seconds after which no new batch is started.
        retune: Try again what the logs know.
    """
    start = time.monotonic()
    search = _Search(mod, target, log, [] if retune else known, seed)
    result = TuningResult([task.result for task in search.tasks], str(log.directory), unit="instructions")
    deadline = None if time_limit is None else start + time_limit
    spent = 0
    while spent < trials and (task := search.next_task()) is not None:
        if deadline is not None and time.monotonic() >= deadline:
            result.stopped = "time limit"
            break
        spent += search.run_batch(task, trials - spent)
        if on_progress is not None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            on_progress(search.progress(task, spent, trials, left))
    for task in search.tasks:
        task.result.finished = not task.left or task.stale >= _PATIENCE
        task.result.reused = task.result.trials == 0 and task.result.finished
    if result.trials or search.tasks:
        result.model_default, result.model_best = instructions_of_model(mod, target, [log, *known])
    result.seconds = time.monotonic() - start
    return result


class _Search:
    def __init__(self, mod: tvm.IRModule, target: TunableTarget, log: TuningLog, known: Sequence[TuningLog], seed: int) -> None:
        self._target, self._log = target, log
        self._random = np.random.default_rng(seed)
        self._model = DecisionModel(seed)
        self._emulator = target.emulator()
        self._tvm = tvm.target.Target(self._emulator.tvm)
        core = target.description.core
        grouped: dict[str, list[Site]] = {}
        for site in target.survey(mod):
            grouped.setdefault(site.choice.workload.key, []).append(site)
        self.tasks: list[_Task] = []
        for sites in grouped.values():
            # The same layer may have more memory to spare at one place than at another.
            site = max(sites, key=lambda site: len(site.choice.space))
            calls = sum(site.count for site in sites)
            workload = workload_module(site.choice.workload, core)
            task = _Task(
                site,
                calls,
                workload,
                TaskResult(layer_name(site.choice.workload.kernel, site.choice.workload.shape), calls),
                SiteTrials(site, seed),
            )
            task.known = {point_key(record.decisions): record for record in read(known, workload)}
            task.left = [i for i, point in enumerate(task.space) if point_key(point) not in task.known]
            rest = np.array(task.left[1:], dtype=int)
            self._random.shuffle(rest)
            task.left[1:] = [int(index) for index in rest]
            self.tasks.append(task)
            self._note(task)
        self._learn(known, core)

    def next_task(self) -> _Task | None:
        """Where most is to be expected; first those whose default was not measured yet."""
        waiting = [task for task in self.tasks if task.left and task.stale < _PATIENCE]
        unknown = [task for task in waiting if task.default is None]
        return unknown[0] if unknown else max(waiting, key=lambda task: task.expected, default=None)

    def run_batch(self, task: _Task, most: int) -> int:
        """Measure some points of a task; how many."""
        before = task.best
        chosen = self._choose(task, min(_BATCH, most))
        outcomes = measure([partial(task.trials.trial, task.space[index]) for index in chosen], self._emulator)
        counts: Counter[str] = Counter(task.result.outcomes)
        for index, outcome in zip(chosen, outcomes, strict=True):
            self._record(task, task.space[index], outcome)
            counts[outcome.status] += 1
            if task.result.reason is None and outcome.status != "ok":
                task.result.reason = f"{outcome.status}: {outcome.reason}"
        task.left = [index for index in task.left if index not in chosen]
        task.result.outcomes = dict(counts)
        task.result.trials += len(chosen)
        gained = before is None or (task.best is not None and task.best < (1 - _LEAST_GAIN) * before)
        task.stale = 0 if gained else task.stale + 1
        self._note(task)
        return len(chosen)

    def progress(self, task: _Task, spent: int, trials: int, left: float | None) -> TuningProgress:
        """The state of the run."""
        default = sum(t.calls * t.default for t in self.tasks if t.default is not None)
        best = sum(t.calls * (t.best or 0) for t in self.tasks if t.default is not None)
        return TuningProgress(
            task=task.result.name,
            task_number=self.tasks.index(task) + 1,
            tasks=len(self.tasks),
            trial=task.result.trials,
            task_trials=len(task.space),
            total_trial=spent,
            total_trials=min(trials, spent + sum(len(t.left) for t in self.tasks)),
            best_cost=task.best,
            default_cost=task.default,
            rejected=task.result.rejected,
            unit="instructions",
            gain=1 - best / default if default else 0.0,
            seconds_left=left,
        )

    def _choose(self, task: _Task, count: int) -> list[int]:
        """The default first, then random points until the cost model knows something, then mostly those it likes best.

        Half of these take no more flash for weights than the default, so that there is something to choose from where flash
        is short.
        """
        if task.default is None and 0 in task.left:
            return [0, *task.left[1 : max(1, count // 4)]]
        scores = self._model.predict(task.site.choice.workload.shape, [task.space[i] for i in task.left])
        if scores is None or len(task.left) <= count:
            return task.left[:count]
        ranked = [task.left[i] for i in np.argsort(scores, kind="stable")]
        weights = task.site.choice.default.get("weights")
        frugal = [i for i in ranked if task.space[i].get("weights") == weights]
        explored = task.left[: int(count * _EXPLORE)]
        half = (count - len(explored)) // 2
        chosen = list(dict.fromkeys([*explored, *frugal[:half], *ranked]))
        return chosen[:count]

    def _record(self, task: _Task, decisions: Decisions, outcome: Outcome) -> None:
        instructions = outcome.instructions if outcome.status == "ok" else None
        record = KernelRecord(decisions, instructions, outcome.flash_bytes, outcome.workspace_bytes)
        append(self._log, task.mod, record, self._tvm)
        task.known[point_key(decisions)] = record
        if instructions is not None and task.default is not None:
            self._model.add(task.site.choice.workload.shape, decisions, instructions / task.default)

    def _learn(self, known: Sequence[TuningLog], core: str) -> None:
        """Take over what logs know of any layer."""
        for log in known:
            for mod in log.modules():
                workload = workload_of(mod)
                if workload is None or workload["core"] != core:
                    continue
                records = [record for record in read([log], mod) if record.instructions is not None]
                least = min((r.instructions or 1 for r in records), default=1)
                for record in records:
                    self._model.add(workload["shape"], record.decisions, (record.instructions or 1) / least)

    def _note(self, task: _Task) -> None:
        task.result.default_cost, task.result.best_cost = task.default, task.best
