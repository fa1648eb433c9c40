"""Keeping tuning logs: what is in them, putting them together, leaving out what is of no more use, checking them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..passes._tvm import tvm
from ..passes.errors import UserError
from ..targets.kernels.decisions import Workload, layer_name, point_key
from ..targets.kernels.records import KernelRecord, decisions_of, final_decisions, read, unit_of, workload_of
from ..targets.kernels.versions import is_current
from ..targets.tuning_log import (
    FAILED_SECONDS,
    RECORDS,
    WORKLOADS,
    TuningLog,
    cost_of,
    packaged_log_directory,
    packaged_targets,
    user_log_directory,
)


@dataclass(frozen=True)
class LogSummary:
    """A log.

    Attributes:
        target: What it is for: x86, or a core.
        directory: Where it is.
        workloads, records: How many it has.
        failed: Records of candidates that did not run or were wrong.
        stale: Workloads of kernels that have changed since: builds pass over them.
    """

    target: str
    directory: Path
    workloads: int
    records: int
    failed: int
    stale: int


@dataclass(frozen=True)
class LogEntry:
    """What a log knows of a workload.

    Attributes:
        name: What it computes.
        records: How many records it has.
        best: The least cost, None where all failed.
        unit: "s", "cycles" or "instructions".
        decisions: Of the best, where they have names.
        stale: Whether the kernel has changed since.
    """

    name: str
    records: int
    best: float | None
    unit: str
    decisions: Mapping[str, Any] = field(default_factory=dict)
    stale: bool = False


def find_logs() -> list[tuple[str, Path]]:
    """The logs that builds consult, by target: the user's, then those that come with the package."""
    user = user_log_directory("x").parent
    own = [(path.name, path) for path in sorted(user.iterdir()) if (path / RECORDS).exists()] if user.is_dir() else []
    shipped = [(name, path) for name in packaged_targets() if (path := packaged_log_directory(name)) is not None]
    return own + [(name, path) for name, path in shipped if path.resolve() not in {other.resolve() for _, other in own}]


def open_log(name: str | os.PathLike[str]) -> TuningLog:
    """A log by the name of its target or by its folder.

    Raises:
        UserError: There is none, or it is damaged.
    """
    path = Path(name)
    if (path / RECORDS).exists():
        return TuningLog(path)
    for target, directory in find_logs():
        if target == str(name):
            return TuningLog(directory)
    known = ", ".join(dict.fromkeys(target for target, _ in find_logs())) or "none yet"
    raise UserError(f"there is no tuning log {name}; give a folder with {RECORDS}, or one of these: {known}")


def summary(target: str, directory: Path) -> LogSummary:
    """What a log holds.

    Raises:
        UserError: It is damaged.
    """
    log = TuningLog(directory)
    modules = list(log.modules())
    failed = sum(cost >= FAILED_SECONDS for mod in modules for cost in log.measured(mod).values())
    stale = sum(not is_current(workload_of(mod) or {}) for mod in modules)
    return LogSummary(target, directory, len(modules), len(log), failed, stale)


def entries(log: TuningLog) -> Iterator[LogEntry]:
    """What a log knows, workload by workload."""
    for mod in log.modules():
        workload = workload_of(mod)
        if workload is None:
            # Whole functions, as logs of x86 had them before decisions had names.
            costs = [cost for cost in log.measured(mod).values() if cost < FAILED_SECONDS]
            yield LogEntry(_parameters(mod), len(log.measured(mod)), min(costs, default=None), "s", stale=True)
            continue
        records = read([log], mod)
        best = _best(log, mod, [record for record in records if record.cost is not None])
        name = f"{workload['core']}: {layer_name(workload['kernel'], workload['shape'])}"
        cost, decisions = (None, {}) if best is None else (best.cost, dict(best.decisions))
        yield LogEntry(name, len(records), cost, unit_of(workload), decisions, not is_current(workload))


def merge(sources: list[TuningLog], directory: Path) -> TuningLog:
    """Put the records of several logs into one; what it has already stays, and no record twice.

    Raises:
        UserError: A log cannot be read or written.
    """
    merged = TuningLog(directory)
    for source in sources:
        for mod in source.modules():
            merged.extend(mod, source.lines(mod))
    return merged


def prune(log: TuningLog) -> tuple[int, int]:
    """Leave out stale workloads, failures, and points that another beats in cost, flash and workspace together.

    What formulas take stays, since builds compare with it, but where it is all that is left and the same in every model.

    Returns:
        Records before and after.

    Raises:
        UserError: The log cannot be read or written.
    """
    before = len(log)
    with tempfile.TemporaryDirectory(prefix="tvmcompress-log-") as scratch:
        kept = TuningLog(Path(scratch) / "log")
        for mod in log.modules():
            workload = workload_of(mod)
            if workload is not None and is_current(workload):
                lines = [line for line in log.lines(mod) if cost_of(line) < FAILED_SECONDS]
                finalists = _finalists(lines) if unit_of(workload) == "s" else set()
                records = useful_records(read([log], mod))
                if unit_of(workload) != "s" and len(records) < 2:
                    continue
                useful = finalists or {point_key(record.decisions) for record in records}
                kept.extend(mod, [line for line in lines if _point(line) in useful])
        try:
            for name in (WORKLOADS, RECORDS):
                source, place = kept.directory / name, log.directory / name
                if source.exists():
                    shutil.copyfile(source, place.with_suffix(".new"))
                else:
                    place.with_suffix(".new").write_text("")
            for name in (RECORDS, WORKLOADS):
                (log.directory / name).with_suffix(".new").replace(log.directory / name)
        except OSError as error:
            raise UserError(f"the tuning log {log.directory} cannot be written ({error.strerror})") from error
        return before, len(kept)


def verify(log: TuningLog) -> list[str]:
    """Read every record whole, and say in a sentence each what a build would pass over.

    Raises:
        UserError: A line is damaged.
    """
    found = []
    for mod, entry in zip(log.modules(), entries(log), strict=True):
        log.records(mod)
        if entry.stale:
            found.append(f"{entry.name}: its kernel has changed since; tune it again")
        elif entry.best is None:
            found.append(f"{entry.name}: none of its {entry.records} candidates ran")
    return found


def _best(log: TuningLog, mod: tvm.IRModule, right: Sequence[KernelRecord]) -> KernelRecord | None:
    """The record that builds take, or that has the least cost."""
    final = final_decisions([log], mod, right[0].decisions) if right and unit_of(workload_of(mod) or {}) == "s" else None
    taken = [record for record in right if final is None or record.decisions == final]
    return min(taken, key=lambda record: record.cost or 0.0, default=None)


def _finalists(lines: Sequence[Any]) -> set[str]:
    """The points that were measured again at the end of a search; as text."""
    counts = Counter(_point(line) for line in lines)
    return {point for point, count in counts.items() if count > 1}


_ALIKE = 0.002
"""Share of the cost by which a point must be better than one that takes less."""


_SLOW = 1.25
"""Times the cost of what formulas take, beyond which flash that is saved is no gain."""


def useful_records(records: Sequence[KernelRecord]) -> list[KernelRecord]:
    """The records that a build may take or compare with: what formulas take, and points that no other beats."""
    right = [record for record in records if record.cost is not None]
    most = _SLOW * max((record.cost or 0.0 for record in right if record.default or record is right[0]), default=0.0)
    kept: list[KernelRecord] = []

    def beaten(record: KernelRecord) -> bool:
        # Routines count in full: in a model no other layer may share them.
        return any(
            other.flash_bytes + other.bytes_without(record) <= record.flash_bytes
            and other.workspace_bytes <= record.workspace_bytes
            and (other.cost or 0.0) <= (1 + _ALIKE) * (record.cost or 0.0)
            for other in kept
        )

    # The first record of a workload is a default also where logs do not say so.
    for record in sorted(right, key=lambda r: (not r.default and r is not right[0], r.flash_bytes, r.workspace_bytes, r.cost)):
        if record.default or record is right[0] or ((record.cost or 0.0) <= most and not beaten(record)):
            kept.append(record)
    return [record for record in right if record in kept]


def best_elsewhere(logs: Sequence[TuningLog]) -> dict[str, set[str]]:
    """By the key of a workload, as kernels have it, the points that are worth trying on another core; as text."""
    found: dict[str, set[str]] = {}
    for log in logs:
        for mod in log.modules():
            key = workload_of(mod)
            if key is not None and is_current(key):
                workload = Workload(key["family"], key["kernel"], key["shape"])
                useful = {point_key(record.decisions) for record in useful_records(read([log], mod))}
                found.setdefault(workload.key, set()).update(useful)
    return found


def _point(line: Any) -> str:
    return point_key(decisions_of(line[0]))


def _parameters(mod: tvm.IRModule) -> str:
    params = mod["main"].params
    return " × ".join("x".join(str(int(dim)) for dim in param.ty.shape) or "scalar" for param in params)
