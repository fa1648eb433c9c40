"""Tuning logs of x86 as a database of MetaSchedule, for TVM flows that are not ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from ...passes._tvm import tvm
from ..tuning_log import TuningLog
from .host import resolve_cpu
from .layer import NotScheduledError
from .schedule import by_logs
from .space import choice_of, schedule_as


@derived_object
class LogDatabase(ms.database.PyDatabase):
    """Answers what `relax.transform.MetaScheduleApplyDatabase` asks: the schedule that logs know for a function.

    Args:
        logs: Asked in this order.
        cpu: What is compiled for: `native`, `portable` or an LLVM name.
    """

    def __init__(self, logs: Sequence[TuningLog], cpu: str = "native") -> None:
        super().__init__()
        self._decide = by_logs(logs, resolve_cpu(cpu))

    def has_workload(self, mod: tvm.IRModule) -> bool:
        """Whether a log knows a function, `main` of a module."""
        return self.query_schedule(mod, None, "main") is not None

    def query_schedule(self, mod: tvm.IRModule, target: Any, workload_name: str) -> Schedule | None:
        """The schedule of a function, None where no log knows it."""
        try:
            decided = self._decide(choice_of(mod))
            return None if decided is None else schedule_as(mod, decided)
        except NotScheduledError:
            return None

    def query_tuning_record(self, mod: tvm.IRModule, target: Any, workload_name: str) -> Any:
        """The same as a record."""
        schedule = self.query_schedule(mod, target, workload_name)
        if schedule is None:
            return None
        return ms.database.TuningRecord(schedule.trace, ms.database.Workload(mod), [1.0], target, None)
