"""What was measured of kernels, in tuning logs.

A workload of a kernel is written as an empty function that bears its key, a point of its space as annotations: so the logs
are MetaSchedule databases like those of schedules. In place of seconds stand executed instructions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule
from tvm.script import tirx as T

from ...passes._tvm import tirx, tvm
from ..tuning_log import FAILED_SECONDS, TuningLog
from .decisions import Decisions, Workload, point_key

# mypy: ignore-errors

WORKLOAD_ATTR = "tvmcompress.workload"
_FLASH, _WORKSPACE = "tvmcompress.flash_bytes", "tvmcompress.workspace_bytes"


@dataclass(frozen=True)
class KernelRecord:
    """One measured point.

    Attributes:
        decisions: The point.
        instructions: Executed instructions of one call; None where the kernel failed.
        flash_bytes: Of its code and constants.
        workspace_bytes: Of its workspaces.
    """

    decisions: Decisions
    instructions: int | None
    flash_bytes: int
    workspace_bytes: int


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


def append(log: TuningLog, mod: tvm.IRModule, record: KernelRecord, target: tvm.target.Target) -> None:
    """Write a record to the end of a log.

    Raises:
        UserError: The log cannot be written.
    """
    schedule = Schedule(mod)
    root = schedule.get_sblock("root")
    values = {**record.decisions, _FLASH: record.flash_bytes, _WORKSPACE: record.workspace_bytes}
    for name, value in values.items():
        schedule.annotate(root, name, value)
    costs = [] if record.instructions is None else [float(record.instructions)]
    log.append(mod, schedule.trace, costs, target, [])


def read(logs: Sequence[TuningLog], mod: tvm.IRModule) -> list[KernelRecord]:
    """All records of a workload, each point once, by its latest measurement; the first log's counts."""
    found: dict[str, KernelRecord] = {}
    for log in reversed(logs):
        for trace, cost in log.measured(mod).items():
            record = _record(json.loads(trace), cost)
            if record is not None:
                found[point_key(record.decisions)] = record
    return list(found.values())


def decisions_of(trace: Any) -> Decisions:
    """The decisions of a record's trace, as a log has it."""
    return {name: value for name, value in _annotations(trace).items() if name not in (_FLASH, _WORKSPACE)}


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
    flash, workspace = values.pop(_FLASH), values.pop(_WORKSPACE)
    return KernelRecord(values, None if cost >= FAILED_SECONDS else int(cost), flash, workspace)
