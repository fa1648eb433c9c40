"""What tuning found, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ..tuning.logs import LogEntry, LogSummary
from ..tuning.progress import TaskResult, TuningResult
from .tables import plain_table
from .units import count, duration, percent


def tuning_table(result: TuningResult) -> RenderableType:
    """One row a layer: before, after, its share of what is tuned, and what it reaches of the machine's peak."""
    table = plain_table()
    table.add_column("function")
    measured = any(task.of_peak is not None for task in result.tasks)
    table.add_figures("calls", "tried", "before", "after", "change", "share", *["of peak"] * measured)
    costs = {id(task): task.calls * (task.default_cost or 0.0) for task in result.tasks}
    total = sum(costs.values())
    for task in sorted(result.tasks, key=lambda task: -costs[id(task)]):
        share = percent(costs[id(task)] / total) if total else ""
        tried = "known" if task.reused else str(task.trials)
        peak = "" if task.of_peak is None else percent(task.of_peak)
        table.add_row(task.name, str(task.calls), tried, *_before_and_after(task, result.unit), share, *[peak] * measured)
    lines = [Text(sentence) for sentence in tuning_sentences(result)]
    return Group(table, *lines)


def tuning_sentences(result: TuningResult) -> list[str]:
    """What the table does not say."""
    found = []
    if result.model_default and result.model_best:
        before, after = (_cost(value, result.unit) for value in (result.model_default, result.model_best))
        change = 100 * (result.model_best / result.model_default - 1)
        found.append(f"The whole model: {before} before, {after} after, {change:+.1f} %.")
    if result.model_problem is not None:
        found.append(f"The whole model was not measured: {result.model_problem}.")
    rejected = [task for task in result.tasks if set(task.outcomes) - {"ok"}]
    for task in rejected:
        others = ", ".join(f"{number} {status}" for status, number in task.outcomes.items() if status != "ok")
        found.append(f"{task.name}: {others} of {task.trials} candidates did not count ({task.reason}).")
    found.append(f"{result.trials} candidates in {duration(1e3 * result.seconds)}; the log is in {result.directory}.")
    if result.stopped is not None:
        found.append(f"Stopped by the {result.stopped}; the same command goes on from here.")
    return found


def logs_table(logs: Sequence[LogSummary]) -> RenderableType:
    """One row a log."""
    table = plain_table()
    table.add_column("log", style="bold")
    table.add_figures("workloads", "records", "failed", "stale")
    table.add_column("folder")
    for log in logs:
        numbers = (log.workloads, log.records, log.failed, log.stale)
        table.add_row(log.target, *(count(number) for number in numbers), str(log.directory))
    return table


def log_table(entries: Sequence[LogEntry]) -> RenderableType:
    """One row a workload."""
    table = plain_table()
    table.add_column("workload")
    table.add_figures("records", "best")
    table.add_column("decisions")
    for entry in entries:
        best = "" if entry.best is None else _cost(entry.best, entry.unit)
        decisions = ", ".join(f"{name} {value}" for name, value in entry.decisions.items())
        table.add_row(entry.name, count(entry.records), best, decisions + (" (stale)" if entry.stale else ""))
    return table


def _before_and_after(task: TaskResult, unit: str) -> tuple[str, str, str]:
    if task.default_cost is None or task.best_cost is None:
        return ("", "" if task.best_cost is None else _cost(task.best_cost, unit), "")
    change = task.best_cost / task.default_cost - 1
    return _cost(task.default_cost, unit), _cost(task.best_cost, unit), f"{100 * change:+.1f} %"


def _cost(value: float, unit: str) -> str:
    return duration(1e3 * value) if unit == "s" else f"{value:,.0f}{' cycles' * (unit == 'cycles')}"
