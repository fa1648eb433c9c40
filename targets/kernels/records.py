"""What was measured of kernels, in tuning logs.

A workload of a kernel is written as an empty function that bears its key, a point of its space as annotations: so the logs
are MetaSchedule databases, with a name for everything that is decided. Of kernels that an emulator runs executed
instructions stand in place of seconds, of those that a microcontroller's board runs its cycles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule
from tvm.script import tirx as T

from ...passes._tvm import tirx, tvm
from ..tuning_log import FAILED_SECONDS, TuningLog, cost_of
from .decisions import Decisions, Workload, point_key

# mypy: ignore-errors

WORKLOAD_ATTR = "tvmcompress.workload"
_SURE = 0.05
"""Of the default's time: what a single timing must be below it."""

_FLASH, _WORKSPACE = "tvmcompress.flash_bytes", "tvmcompress.workspace_bytes"
_CONSTANTS, _COUNT, _LIBRARY = "tvmcompress.constant_bytes", "tvmcompress.workspaces", "tvmcompress.library"
_DEFAULT = "tvmcompress.default"
_OURS = (_FLASH, _WORKSPACE, _CONSTANTS, _COUNT, _LIBRARY, _DEFAULT)


SIZES = ("flash_bytes", "workspace_bytes", "constant_bytes", "workspaces", "library")
"""What is known of a kernel beside its cost."""


@dataclass(frozen=True)
class KernelRecord:
    """One measured point.

    Attributes:
        decisions: The point.
        cost: Executed instructions, or cycles, of one call, or seconds; None where the kernel failed.
        flash_bytes: Of its code and constants.
        workspace_bytes: Of its workspaces.
        constant_bytes: Of its constants.
        workspaces: How many it has.
        library: The functions that it calls: of the C library by name; routines that kernels of a model share by name and
            bytes, as in `name:568`.
        default: Whether a formula takes it, in the model that was tuned.
    """

    decisions: Decisions
    cost: float | None
    flash_bytes: int = 0
    workspace_bytes: int = 0
    constant_bytes: int = 0
    workspaces: int = 0
    library: tuple[str, ...] = ()
    default: bool = False

    @property
    def routines(self) -> dict[str, int]:
        """Bytes of the routines that it shares, by name."""
        parts = (entry.partition(":") for entry in self.library)
        return {name: int(size) for name, mark, size in parts if mark}

    def bytes_without(self, other: KernelRecord) -> int:
        """Bytes of the routines that another record does not have."""
        return sum(size for name, size in self.routines.items() if name not in other.routines)


def workload_module(workload: Workload, core: str) -> tvm.IRModule:
    """The workload as a log keys it, on a core."""

    @T.prim_func(s_tir=True)
    def main():
        with T.sblock("root"):
            T.evaluate(0)

    key = json.dumps({"core": core, **json.loads(workload.key)}, sort_keys=True)
    func = main.with_attr(WORKLOAD_ATTR, key).with_attr("global_symbol", "main")
    return tvm.IRModule({"main": func})


def workload_of(mod: tvm.IRModule) -> dict[str, Any] | None:
    """What `workload_module` was made of; None of other workloads."""
    func = mod["main"] if "main" in [var.name_hint for var in mod.get_global_vars()] else None
    if not isinstance(func, tirx.PrimFunc) or func.attrs is None or WORKLOAD_ATTR not in func.attrs:
        return None
    return json.loads(str(func.attrs[WORKLOAD_ATTR]))


_ON = " on "


def core_of_board(core: str, board: str) -> str:
    """What stands for the core in the key of what was measured on a board."""
    return f"{core}{_ON}{board}"


def unit_of(workload: Mapping[str, Any]) -> str:
    """What costs of a workload are: "s" of time, "cycles" of a microcontroller, or executed "instructions"."""
    on_board, family = _ON in str(workload.get("core")), workload.get("family")
    if family == "x86" or (on_board and family == "neon"):
        return "s"
    return "cycles" if on_board else "instructions"


def final_records(logs: Sequence[TuningLog], mod: tvm.IRModule, default: Decisions) -> list[KernelRecord]:
    """The default's record, and that of what a search by time ended with; nothing where that is not known.

    Args:
        logs: The first one that knows the workload counts.
        mod: The workload.
        default: What a formula takes.
    """
    final = final_decisions(logs, mod, default)
    known = {point_key(record.decisions): record for record in read(logs, mod)} if final is not None else {}
    return [known[key] for key in dict.fromkeys(map(point_key, (default, final or default))) if key in known]


def append(log: TuningLog, mod: tvm.IRModule, record: KernelRecord, target: tvm.target.Target) -> None:
    """Write a record to the end of a log.

    Raises:
        UserError: The log cannot be written.
    """
    append_all(log, mod, [record], target)


def append_all(log: TuningLog, mod: tvm.IRModule, records: Sequence[KernelRecord], target: tvm.target.Target) -> None:
    """Write records of a workload to the end of a log, at once.

    Raises:
        UserError: The log cannot be written.
    """
    log.append_all(mod, [_line(mod, record) for record in records], target)


def _line(mod: tvm.IRModule, record: KernelRecord) -> tuple[Any, list[float]]:
    """The trace and the costs of a record."""
    schedule = Schedule(mod)
    root = schedule.get_sblock("root")
    values = {**record.decisions, _FLASH: record.flash_bytes, _WORKSPACE: record.workspace_bytes}
    more = {
        _CONSTANTS: record.constant_bytes,
        _COUNT: record.workspaces,
        _LIBRARY: " ".join(record.library),
        _DEFAULT: int(record.default),
    }
    values |= {name: value for name, value in more.items() if value}
    for name, value in values.items():
        schedule.annotate(root, name, value)
    return schedule.trace, [] if record.cost is None else [float(record.cost)]


def read(logs: Sequence[TuningLog], mod: tvm.IRModule) -> list[KernelRecord]:
    """All records of a workload, each point once, by its latest measurement; the first log's counts."""
    found: dict[str, KernelRecord] = {}
    for log in reversed(logs):
        for trace, cost in log.measured(mod).items():
            record = _record(json.loads(trace), cost)
            if record is not None:
                found[point_key(record.decisions)] = record
    return list(found.values())


def final_decisions(logs: Sequence[TuningLog], mod: tvm.IRModule, default: Decisions) -> Decisions | None:
    """The decisions that a search by time ended with; of the first log that knows the workload, None where none does.

    A search ends by measuring its best candidates again beside the default, since single timings mislead: among points that
    were measured more than once the fastest by its latest time counts. Of a search that was interrupted the fastest counts
    if it is clearly faster than the default.
    """
    for log in logs:
        latest: dict[str, KernelRecord] = {}
        finalists: dict[str, KernelRecord] = {}
        for line in log.lines(mod):
            record = _record(line[0], cost_of(line))
            if record is None or record.cost is None:
                continue
            key = point_key(record.decisions)
            if key in latest:
                finalists[key] = record
            latest[key] = record
        if finalists:
            return min(finalists.values(), key=lambda record: record.cost or 0.0).decisions
        if latest:
            fastest = min(latest.values(), key=lambda record: record.cost or 0.0)
            known = latest.get(point_key(default))
            surely = known is not None and (fastest.cost or 0.0) < (1 - _SURE) * (known.cost or 0.0)
            return fastest.decisions if surely else default
    return None


def decisions_of(trace: Any) -> Decisions:
    """The decisions of a record's trace, as a log has it."""
    return {name: value for name, value in _annotations(trace).items() if name not in _OURS}


def _annotations(trace: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for kind, inputs, attributes, _ in trace[0]:
        if kind == "Annotate":
            value = inputs[1]
            values[attributes[0]] = json.loads(value) if isinstance(value, str) else value
    return values


def _record(trace: Any, cost: float) -> KernelRecord | None:
    values = _annotations(trace)
    if _FLASH not in values or _WORKSPACE not in values:
        return None
    sizes = {
        "flash_bytes": values.pop(_FLASH),
        "workspace_bytes": values.pop(_WORKSPACE),
        "constant_bytes": values.pop(_CONSTANTS, 0),
        "workspaces": values.pop(_COUNT, 0),
        "library": tuple(str(values.pop(_LIBRARY, "")).split()),
    }
    default = bool(values.pop(_DEFAULT, 0))
    return KernelRecord(values, None if cost >= FAILED_SECONDS else cost, **sizes, default=default)
