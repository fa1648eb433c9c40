"""Schedules for every function of a lowered module: from tuning logs where they know it, otherwise the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from .choices import Defaults
from .lower import prim_funcs, workload
from .templates import NotScheduledError, schedule_elementwise, tile_reduction


class ScheduleSource(Protocol):
    """Something that knows tuned schedules, such as a tuning log."""

    def best(self, mod: tvm.IRModule) -> Any | None:
        """The record with the best schedule of a workload; None when it is not known."""


@dataclass
class ScheduleSummary:
    """Where the schedules of a module came from, by function name."""

    tuned: list[str] = field(default_factory=list)
    default: list[str] = field(default_factory=list)
    unscheduled: dict[str, str] = field(default_factory=dict)
    """Functions left as they were, with the reason."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Those among them that had a schedule which could not be compiled."""

    def falls_back(self, name: str, reason: str) -> None:
        """Note that the schedule of a function was given up for the generic one."""
        for names in (self.tuned, self.default):
            if name in names:
                names.remove(name)
        self.unscheduled[name] = self.given_up[name] = reason


def schedule_module(mod: tvm.IRModule, logs: Sequence[ScheduleSource] = ()) -> tuple[tvm.IRModule, ScheduleSummary]:
    """Schedule the PrimFuncs of a lowered module.

    Args:
        mod: What `lower` returns.
        logs: Asked in this order; the first that knows a function decides.

    Returns:
        The scheduled module and where each schedule came from.
    """
    summary = ScheduleSummary()
    functions = {}
    for name, func in prim_funcs(mod).items():
        functions[name] = _schedule(name, func, logs, summary)
    new = tvm.IRModule(dict(mod.functions), attrs=mod.attrs)
    for var, func in mod.functions.items():
        if var.name_hint in functions:
            new.update_func(var, _like(func, functions[var.name_hint]))
    return new, summary


def default_schedule(mod: tvm.IRModule, parallel: bool = True) -> Schedule:
    """The schedule of a workload (one function, `main`) without a search.

    Raises:
        NotScheduledError: No template fits; the message says why.
    """
    try:
        schedule = Schedule(mod)
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
        if not blocks:
            raise NotScheduledError("the function has no blocks")
        if any(iv.iter_type == 2 for block in blocks for iv in schedule.get(block).iter_vars):
            tile_reduction(schedule, Defaults(), parallel)
        else:
            schedule_elementwise(schedule, parallel)
    except NotScheduledError:
        raise
    except Exception as error:  # a template that meets what it was not made for: TVM has a class of its own for each case
        lines = str(error).strip().splitlines()
        raise NotScheduledError(lines[0] if lines else "the template does not apply") from error
    return schedule


def _schedule(
    name: str, func: tvm.tirx.PrimFunc, logs: Sequence[ScheduleSource], summary: ScheduleSummary
) -> tvm.tirx.PrimFunc:
    if func.attrs is not None and "tirx.is_scheduled" in func.attrs:
        summary.default.append(name)
        return func
    mod = workload(func)
    for log in logs:
        record = log.best(mod)
        if record is not None:
            schedule = Schedule(mod)
            record.trace.apply_to_schedule(schedule, remove_postproc=False)
            summary.tuned.append(name)
            return schedule.mod["main"]
    try:
        scheduled = default_schedule(mod).mod["main"]
        summary.default.append(name)
        return scheduled
    except NotScheduledError as reason:
        summary.unscheduled[name] = str(reason)
        return func


def _like(old: tvm.tirx.PrimFunc, new: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """`new` with the attributes that say how the rest of the module refers to `old`."""
    if "global_symbol" not in (old.attrs or {}) and "global_symbol" in (new.attrs or {}):
        new = new.without_attr("global_symbol")
    return new
