"""What tuning says while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TuningProgress:
    """The state after a batch of candidates.

    Attributes:
        task: Name of the function being tuned.
        task_number: Which it is, from one.
        tasks: How many there are.
        trial: Candidates of this task tried so far.
        task_trials: How many it will have at most.
        total_trial: Candidates of all tasks tried so far.
        total_trials: How many there will be at most.
        best_cost: The best so far, in `unit`; None before the first that is right.
        default_cost: Of an untuned build, None before it was measured.
        rejected: Candidates of this task that computed something else than the reference.
        unit: "s" of time, executed "instructions", or "cycles" of a board.
        gain: What share of its cost the whole model has lost so far, where that is known.
        seconds_left: Of the time limit, where there is one.
    """

    task: str
    task_number: int
    tasks: int
    trial: int
    task_trials: int
    total_trial: int
    total_trials: int
    best_cost: float | None
    default_cost: float | None
    rejected: int
    unit: str = "s"
    gain: float = 0.0
    seconds_left: float | None = None


OnProgress = Callable[[TuningProgress], None]


@dataclass
class TaskResult:
    """What came out for one function.

    Attributes:
        name: Its name in the lowered model.
        calls: How often the model calls it.
        trials: Candidates tried in this run.
        outcomes: How they ended: `ok`, `wrong`, `error`, `timeout`, `crash`.
        reused: Whether a log knew it already, so that nothing was tried.
        finished: Whether its share of the trials was used up or its candidates were.
        default_cost: Of an untuned build, in the result's `unit`; measured again beside the best where that was done.
        best_cost: Of the best candidate.
        of_peak: What share of the machine's multiply-accumulates a second the best candidate reaches, where that is known.
        reason: The first reason why a candidate did not count, if one did not.
    """

    name: str
    calls: int
    trials: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    reused: bool = False
    finished: bool = False
    default_cost: float | None = None
    best_cost: float | None = None
    of_peak: float | None = None
    reason: str | None = None

    @property
    def rejected(self) -> int:
        """Candidates that computed something else than the reference."""
        return self.outcomes.get("wrong", 0)


@dataclass
class TuningResult:
    """What a tuning run did.

    Attributes:
        tasks: One result for each function, those with most work first.
        directory: The log that was written.
        seconds: How long it took.
        stopped: Why it ended before all trials were used: `time limit`, `loss of all boards`, or None.
        lost: How the last board was lost, where it was.
        unit: Of costs: "s" of time, executed "instructions", or "cycles" of a board.
        model_default, model_best: Of the whole model without and with what was found, where that was measured.
        model_problem: Why the whole model could not be measured, where that was tried.
    """

    tasks: list[TaskResult]
    directory: str
    seconds: float = 0.0
    stopped: str | None = None
    lost: str | None = None
    unit: str = "s"
    model_default: float | None = None
    model_best: float | None = None
    model_problem: str | None = None

    @property
    def trials(self) -> int:
        """Candidates tried in this run."""
        return sum(task.trials for task in self.tasks)

    @property
    def rejected(self) -> int:
        """Candidates that computed something else than the reference."""
        return sum(task.rejected for task in self.tasks)

    @property
    def reused(self) -> int:
        """Functions that a log knew already."""
        return sum(task.reused for task in self.tasks)
