"""The search for decisions of lowest cost: which to try next, for any target, and what to write down."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..passes._tvm import tvm
from ..targets.kernels.decisions import Choice, Decisions, layer_name, point_key
from ..targets.kernels.records import KernelRecord, append_all, read, workload_module, workload_of
from ..targets.tuning_log import TuningLog
from .decision_model import DecisionModel
from .logs import best_elsewhere
from .progress import OnProgress, TaskResult, TuningProgress, TuningResult

Unit = Literal["s", "cycles", "instructions"]

LOST = "lost"
"""Status of a candidate that could not be measured, since there is nowhere left to do so: as if it had not been tried."""

_EXPLORE = 0.25
"""Share of each batch that is drawn at random, whatever the cost model thinks."""
_PATIENCE = 3
"""Batches without a gain after which a layer is done."""


@dataclass
class Task:
    """A workload, and what is known of its points.

    Attributes:
        choice: What may be decided.
        calls: How often the model computes it.
        work: Multiply-accumulates of one call; 0 where nobody counts them.
        subject: What the bench needs to make candidates.
        known: What was measured, by point.
        left: The points that were not measured yet, by number.
        stale: Batches since the last gain.
        taken: What builds take, where the search came to its end and they do not ask for the least cost alone.
    """

    choice: Choice
    calls: int
    subject: Any
    work: int = 0
    known: dict[str, KernelRecord] = field(default_factory=dict)
    left: list[int] = field(default_factory=list)
    stale: int = 0
    taken: Decisions | None = None

    def __post_init__(self) -> None:
        self.result = TaskResult(layer_name(self.choice.workload.kernel, self.choice.workload.shape), self.calls)

    @property
    def space(self) -> Sequence[Decisions]:
        """The points, the default first."""
        return self.choice.space

    def costs(self) -> dict[str, float]:
        """Of the points that ran and were right."""
        return {key: record.cost for key, record in self.known.items() if record.cost is not None}

    @property
    def default(self) -> float | None:
        """Cost of the default."""
        return self.costs().get(point_key(self.choice.default))

    @property
    def best(self) -> float | None:
        """Cost of what builds take; while a search goes on, of the best point so far."""
        costs = self.costs()
        if self.taken is not None and point_key(self.taken) in costs:
            return costs[point_key(self.taken)]
        return min((costs[key] for point in self.space if (key := point_key(point)) in costs), default=None)

    def worth(self, price: float) -> float:
        """The least cost in the whole model, flash included at so much a byte; infinite where nothing is known."""
        return min(
            (
                self.calls * record.cost + price * record.flash_bytes
                for record in self.known.values()
                if record.cost is not None
            ),
            default=math.inf,
        )

    @property
    def expected(self) -> float:
        """Cost of the whole model that another batch may still save: less with each that saved none."""
        return self.calls * (self.best or 0) * 0.5**self.stale


@dataclass(frozen=True)
class Measured:
    """What came of a candidate: `status` is ok, wrong, error, timeout or crash; `reason` says what happened to one that does
    not count, `sizes` has what else a record knows of one that does."""

    status: str
    cost: float | None = None
    reason: str | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counted(self) -> float | None:
        """The cost, where it counts."""
        return self.cost if self.status == "ok" else None


class Bench(ABC):
    """Where candidates are made and measured."""

    unit: Unit
    batch: int
    """Candidates that are measured together."""
    least_gain: float
    """Of a layer's cost: less is no gain."""
    core: str
    """What records are keyed by beside the workload: a core, or an instruction set."""
    log_target: tvm.target.Target
    """The target as logs record it."""
    lost: str | None = None
    """Why nothing can be measured any more."""

    @abstractmethod
    def measure(self, task: Task, points: Sequence[Decisions]) -> list[Measured]:
        """Measure points of a task; only what computes the reference counts."""

    def group(self, point: Decisions) -> str:
        """Candidates of one group share work when they are measured one after the other."""
        return point_key(point)

    def share_of_peak(self, task: Task) -> float | None:
        """What share of what the machine can do at most a task reaches, where that is known."""
        return None

    def settled(self, task: Task, mod: tvm.IRModule) -> bool:
        """Whether logs know of a task, keyed by `mod`, all that another search would find."""
        return False

    def taken(self, task: Task, mod: tvm.IRModule, logs: Sequence[TuningLog]) -> Decisions | None:
        """What builds take of a task whose search came to its end; None for the point of least cost."""
        return None

    def finish(self, task: Task, mod: tvm.IRModule) -> None:  # noqa: B027, for those that have nothing to do
        """Write down what of a task, in which something was tried, a build is to take."""


def search(
    tasks: Sequence[Task],
    bench: Bench,
    trials: int,
    log: TuningLog,
    known: Sequence[TuningLog],
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    deadline: float | None = None,
    hints: Sequence[TuningLog] = (),
) -> TuningResult:
    """Search for the decisions of lowest cost.

    Args:
        tasks: Each workload once; of those whose defaults were not measured yet the first is next.
        bench: Where to measure.
        trials: Candidates to measure in total.
        log: Where to write.
        known: The logs whose records count as measured.
        seed: Of what is drawn at random.
        on_progress: Called after every batch.
        deadline: `time.monotonic()` after which no new batch is started.
        hints: Logs of other cores; what is best there is tried first.
    """
    start = time.monotonic()
    run = _Search(tasks, bench, log, known, hints, seed)
    result = TuningResult([task.result for task in tasks], str(log.directory), unit=bench.unit)
    spent = 0
    while spent < trials and (task := run.next_task()) is not None:
        if deadline is not None and time.monotonic() >= deadline:
            result.stopped = "time limit"
            break
        spent += run.run_batch(task, trials - spent)
        if bench.lost is not None:
            result.stopped, result.lost = "loss of all boards", bench.lost
            break
        if on_progress is not None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            on_progress(run.progress(task, spent, trials, left))
    run.finish()
    result.seconds = time.monotonic() - start
    return result


class _Search:
    def __init__(
        self,
        tasks: Sequence[Task],
        bench: Bench,
        log: TuningLog,
        known: Sequence[TuningLog],
        hints: Sequence[TuningLog],
        seed: int,
    ) -> None:
        self._bench, self._log, self._tasks = bench, log, list(tasks)
        self._random = np.random.default_rng(seed)
        self._model, self._flash = DecisionModel(seed), DecisionModel(seed)
        self._keys: dict[int, tvm.IRModule] = {}
        self._hints = best_elsewhere(hints)
        for task in tasks:
            self._keys[id(task)] = key = workload_module(task.choice.workload, bench.core)
            task.known = {point_key(record.decisions): record for record in read(known, key)}
            task.left = [i for i, point in enumerate(task.space) if point_key(point) not in task.known]
            self._mark_default(task)
            task.left = self._drawn(task)
            if known and bench.settled(task, key):
                task.left = []
                task.taken = bench.taken(task, key, known)
            self._note(task)
        self._learn(known)

    def next_task(self) -> Task | None:
        """Where most is to be expected; first those whose default was not measured yet."""
        waiting = [task for task in self._tasks if task.left and task.stale < _PATIENCE]
        unknown = [task for task in waiting if task.default is None]
        return unknown[0] if unknown else max(waiting, key=lambda task: task.expected, default=None)

    def run_batch(self, task: Task, most: int) -> int:
        """Measure some points of a task; how many."""
        before, price = task.best, self._price()
        worth = task.worth(price)
        chosen = self._choose(task, min(self._bench.batch, most))
        points = [task.space[index] for index in chosen]
        counts: Counter[str] = Counter(task.result.outcomes)
        outcomes = self._bench.measure(task, points)
        measured = []
        for index, decisions, outcome in zip(list(chosen), points, outcomes, strict=True):
            if outcome.status == LOST:
                chosen.remove(index)
                continue
            measured.append((decisions, outcome))
            counts[outcome.status] += 1
            if task.result.reason is None and outcome.status != "ok":
                task.result.reason = f"{outcome.status}: {outcome.reason}"
        if measured:
            self._record(task, measured)
        task.left = [index for index in task.left if index not in chosen]
        task.result.outcomes = dict(counts)
        task.result.trials += len(chosen)
        less = 1 - self._bench.least_gain
        gained = before is None or (task.best is not None and task.best < less * before) or task.worth(price) < less * worth
        task.stale = 0 if gained else task.stale + 1
        self._note(task)
        return len(chosen)

    def finish(self) -> None:
        """Close every task."""
        for task in self._tasks:
            task.result.finished = not task.left or task.stale >= _PATIENCE
            task.result.reused = task.result.trials == 0 and task.result.finished
            if task.result.trials:
                key = self._keys[id(task)]
                self._bench.finish(task, key)
                task.known.update({point_key(record.decisions): record for record in read([self._log], key)})
                task.taken = self._bench.taken(task, key, [self._log])
                self._note(task)
                task.result.of_peak = self._bench.share_of_peak(task)

    def progress(self, task: Task, spent: int, trials: int, left: float | None) -> TuningProgress:
        """The state of the run."""
        default = sum(t.calls * t.default for t in self._tasks if t.default is not None)
        best = sum(t.calls * (t.best or 0) for t in self._tasks if t.default is not None)
        return TuningProgress(
            task=task.result.name,
            task_number=self._tasks.index(task) + 1,
            tasks=len(self._tasks),
            trial=task.result.trials,
            task_trials=len(task.space),
            total_trial=spent,
            total_trials=min(trials, spent + sum(len(t.left) for t in self._tasks)),
            best_cost=task.best,
            default_cost=task.default,
            rejected=task.result.rejected,
            unit=self._bench.unit,
            gain=1 - best / default if default else 0.0,
            seconds_left=left,
        )

    def _drawn(self, task: Task) -> list[int]:
        """The points that are left.

        Those like the default come first, then what the formula takes in other models, what is best elsewhere, and groups in
        random order.
        """
        hinted = self._hints.get(task.choice.workload.key, ())
        groups: dict[str, list[int]] = {}
        for index in task.left:
            groups.setdefault(self._bench.group(task.space[index]), []).append(index)
        first, *others = groups.values() or [[]]
        keys = {index: point_key(task.space[index]) for index in task.left}
        formulas = [index for index, key in keys.items() if key in task.choice.by_formula]
        hints = [index for index, key in keys.items() if key in hinted]
        rest = (index for i in self._random.permutation(len(others)) for index in others[i])
        return list(dict.fromkeys([*first, *formulas, *hints, *rest]))

    def _mark_default(self, task: Task) -> None:
        """Say in the log which known points a formula takes, here or in other models, which that of another core may not."""
        known = [record for key, record in task.known.items() if key in task.choice.by_formula]
        marked = [replace(record, default=True) for record in known if record.cost is not None and not record.default]
        if marked and self._bench.unit != "s":
            task.known.update({point_key(record.decisions): record for record in marked})
            append_all(self._log, self._keys[id(task)], marked, self._bench.log_target)

    def _choose(self, task: Task, count: int) -> list[int]:
        """The default first, then random points until the cost model knows something, then mostly those it likes best.

        Half of these are best by their cost and their flash at its price, another model's: where flash is short one layer's
        must be saved elsewhere. Of a group the better half is taken.
        """
        if task.default is None and 0 in task.left:
            return sorted(task.left[: max(1, count // 4)])
        points = [task.space[i] for i in task.left]
        scores = self._model.predict(task.choice.workload.shape, points)
        if scores is None or len(task.left) <= count:
            return sorted(task.left[:count])
        flash = self._flash.predict(task.choice.workload.shape, points)
        cheap = self._better_halves(task, scores)
        frugal: list[int] = []
        if flash is not None and (default := task.known.get(point_key(task.choice.default))) is not None:
            costs = task.calls * (default.cost or 0.0) * scores
            frugal = self._better_halves(task, costs + self._price() * default.flash_bytes * flash)
        explored = task.left[: int(count * _EXPLORE)]
        half = (count - len(explored)) // 2
        # Neighbours are of one group.
        return sorted(list(dict.fromkeys([*explored, *frugal[:half], *cheap, *task.left]))[:count])

    def _better_halves(self, task: Task, scores: np.ndarray) -> list[int]:
        """The points that are left, the group of the best one first, of each group the better half."""
        groups: dict[str, list[int]] = {}
        for at in np.argsort(scores, kind="stable"):
            index = task.left[at]
            groups.setdefault(self._bench.group(task.space[index]), []).append(index)
        return [index for group in groups.values() for index in group[: -(-len(group) // 2)]]

    def _price(self) -> float:
        """What a byte of flash is worth: the median of what layers save at best for what they take more."""
        found = []
        for task in self._tasks:
            default = task.known.get(point_key(task.choice.default))
            right = [record for record in task.known.values() if record.cost is not None]
            if default is None or default.cost is None:
                continue
            best = min(right, key=lambda record: record.cost or 0.0)
            if best.flash_bytes > default.flash_bytes:
                saved = task.calls * (default.cost - (best.cost or 0.0))
                found.append(saved / (best.flash_bytes - default.flash_bytes))
        return float(np.median(found)) if found else 0.0

    def _record(self, task: Task, measured: Sequence[tuple[Decisions, Measured]]) -> None:
        # Of timings what the rounds at the end say counts, and where there are none, the formula.
        defaults = task.choice.by_formula if self._bench.unit != "s" else ()
        records = [
            KernelRecord(decisions, outcome.counted, **outcome.sizes, default=point_key(decisions) in defaults)
            for decisions, outcome in measured
        ]
        append_all(self._log, self._keys[id(task)], records, self._bench.log_target)
        for record in records:
            task.known[point_key(record.decisions)] = record
            if record.cost is not None and task.default is not None:
                self._teach(task.choice.workload.shape, record, task.known[point_key(task.choice.default)])

    def _learn(self, known: Sequence[TuningLog]) -> None:
        """Take over what logs know of any layer."""
        for log in known:
            for mod in log.modules():
                workload = workload_of(mod)
                if workload is None or workload["core"] != self._bench.core:
                    continue
                records = [record for record in read([log], mod) if record.cost is not None]
                for record in records:
                    # The default comes first.
                    self._teach(workload["shape"], record, records[0])

    def _teach(self, shape: Mapping[str, Any], record: KernelRecord, default: KernelRecord) -> None:
        self._model.add(shape, record.decisions, (record.cost or 1.0) / (default.cost or 1.0))
        if record.flash_bytes and default.flash_bytes:
            self._flash.add(shape, record.decisions, record.flash_bytes / default.flash_bytes)

    def _note(self, task: Task) -> None:
        task.result.default_cost, task.result.best_cost = task.default, task.best
