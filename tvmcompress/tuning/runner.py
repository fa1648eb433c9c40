"""MetaSchedule's runner: checks what a candidate computes, then measures it, in a process that may crash."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerInput, RunnerResult

from .process import Worker


@derived_object
class _Finished(PyRunnerFuture):
    """A result that is there already."""

    def __init__(self, outcome: RunnerResult) -> None:
        super().__init__()
        self.outcome = outcome

    def done(self) -> bool:
        return True

    def result(self) -> RunnerResult:
        return self.outcome


@derived_object
class CheckingRunner(PyRunner):
    """Runs candidates one after another; only the time of one whose output equals the reference counts.

    Args:
        worker: Where they run.
        data: The file with the inputs and the expected output, made by the worker's `reference`.
        tolerance: Allowed error of floats, relative to the largest magnitude of the reference; integers must be equal.
        limit: Seconds that one may take, its measurement included.
        repeat: How many times to report.
        milliseconds: How long each of them runs.

    Attributes:
        outcomes: How many candidates ended as `ok`, `wrong`, `error`, `timeout` and `crash`.
    """

    def __init__(
        self,
        worker: Worker,
        data: Path,
        tolerance: float = 1e-4,
        limit: float = 10.0,
        repeat: int = 3,
        milliseconds: int = 10,
    ) -> None:
        super().__init__()
        self.worker = worker
        self.data = data
        self.tolerance = tolerance
        self.limit = limit
        self.repeat = repeat
        self.milliseconds = milliseconds
        self.outcomes: Counter[str] = Counter()

    def run(self, runner_inputs: list[RunnerInput]) -> list[PyRunnerFuture]:
        """Check and measure candidates."""
        return [_Finished(self.measure(str(item.artifact_path))) for item in runner_inputs]

    def measure(self, library: str) -> RunnerResult:
        """Check and measure one library; a result without seconds says why."""
        arguments = (library, str(self.data), self.tolerance, self.repeat, self.milliseconds)
        status, value = self.worker.call("run", *arguments, limit=self.limit)
        self.outcomes[status] += 1
        return RunnerResult(value, None) if status == "ok" else RunnerResult(None, f"{status}: {value}")
