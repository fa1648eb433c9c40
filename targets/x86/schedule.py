"""Schedules for every function of a lowered module: as tuning logs decide where they know it, otherwise by formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...passes._tvm import tvm
from ..kernels.decisions import Choice, Decisions
from ..kernels.records import final_decisions, workload_module
from ..tuning_log import TuningLog
from .host import log_names
from .layer import NotScheduledError
from .lower import prim_funcs, workload
from .rows import schedule_rows, sums_over_rows
from .space import choice_of, schedule_as

Decide = Callable[[Choice], Decisions | None]
"""Decides for a function; None leaves it to the formula."""


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


def by_formula(choice: Choice) -> Decisions | None:
    """Leaves everything to the formulas."""
    return None


def by_logs(logs: Sequence[TuningLog], cpu: str) -> Decide:
    """Decides as tuning logs know.

    Args:
        logs: Asked in this order; the first that knows a function decides.
        cpu: What is compiled for, as `host.resolve_cpu` gives it. A log is asked by each of its `host.log_names`.
    """
    asked = [log for log in logs if len(log)]
    names = log_names(cpu)

    def decide(choice: Choice) -> Decisions | None:
        keys = [workload_module(choice.workload, name) for name in names] if asked else []
        found = (final_decisions([log], key, choice.default) for log, key in itertools.product(asked, keys))
        return next((decisions for decisions in found if decisions in choice.space), None)

    return decide


def schedule_module(mod: tvm.IRModule, decide: Decide = by_formula) -> tuple[tvm.IRModule, ScheduleSummary]:
    """Schedule the PrimFuncs of a lowered module.

    Args:
        mod: What `lower` returns.
        decide: Who decides.

    Returns:
        The scheduled module and where each schedule came from.
    """
    summary = ScheduleSummary()
    functions = {}
    for name, func in prim_funcs(mod).items():
        functions[name] = _schedule(name, func, decide, summary)
    new = tvm.IRModule(dict(mod.functions), attrs=mod.attrs)
    for var, func in mod.functions.items():
        if var.name_hint in functions:
            new.update_func(var, _like(func, functions[var.name_hint]))
    return new, summary


def _schedule(name: str, func: tvm.tirx.PrimFunc, decide: Decide, summary: ScheduleSummary) -> tvm.tirx.PrimFunc:
    if func.attrs is not None and "tirx.is_scheduled" in func.attrs:
        summary.default.append(name)
        return func
    mod = workload(func)
    try:
        if sums_over_rows(mod):
            summary.default.append(name)
            return schedule_rows(mod)["main"]
        choice = choice_of(mod)
        decided = decide(choice)
        scheduled = schedule_as(mod, choice.default if decided is None else decided).mod["main"]
    except NotScheduledError as reason:
        summary.unscheduled[name] = str(reason)
        return func
    (summary.default if decided is None else summary.tuned).append(name)
    return scheduled


def _like(old: tvm.tirx.PrimFunc, new: tvm.tirx.PrimFunc) -> tvm.tirx.PrimFunc:
    """`new` with the attributes that say how the rest of the module refers to `old`."""
    if "global_symbol" not in (old.attrs or {}) and "global_symbol" in (new.attrs or {}):
        new = new.without_attr("global_symbol")
    return new
