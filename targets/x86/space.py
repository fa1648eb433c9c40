"""The search space of the tuner on x86: the points of the template, few enough to be listed."""

from __future__ import annotations

from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from .choices import Pinned, Survey
from .host import cpu_features, log_target, resolve_cpu, tvm_target
from .lower import lower
from .templates import NotScheduledError, registers, tile_reduction

Point = tuple[int, ...]
"""Channels of a tile; positions of a tile and whether channels are the outermost loop, where there are any; unrolling
of the innermost reduction."""

_MOST_REGISTERS = 28
"""AVX-512 has 32 registers; beyond them every tile spills."""


def points(mod: tvm.IRModule) -> list[Point]:
    """The candidates for a workload (one function, `main`), the default first, the others in a fixed order.

    Empty where the template has nothing to choose.
    """
    survey = Survey()
    try:
        tile_reduction(Schedule(mod), survey)
    except (NotScheduledError, tvm.s_tir.ScheduleError):
        return []
    candidates: list[Point] = [()]
    for options in survey.options:
        candidates = [(*point, option) for point in candidates for option in options]
    default = tuple(survey.default)
    sensible = [point for point in candidates if point != default and _fits(point)]
    return [default, *sensible] if sensible else []


def candidate(mod: tvm.IRModule, point: Point) -> Schedule:
    """The schedule of a workload at a point of its space.

    Raises:
        NotScheduledError: The workload does not have the template's pattern.
    """
    schedule = Schedule(mod)
    tile_reduction(schedule, Pinned(point))
    return schedule


def _fits(point: Point) -> bool:
    lanes, *middle, repeat = point  # middle: positions, and perhaps the order of loops
    used = registers(lanes, middle[0] if middle else 1)
    # Unrolling long reductions of large tiles only costs instruction cache and compile time.
    return used <= _MOST_REGISTERS and used * repeat <= 4 * _MOST_REGISTERS


class X86Tuning:
    """What the tuner asks of a target.

    Args:
        cpu: What to compile candidates for: `native`, `portable` or an LLVM name.
        threads: Threads that a candidate may use.
    """

    name = "x86"

    def __init__(self, cpu: str = "native", threads: int = 1) -> None:
        self.threads = threads
        self.target = tvm_target(cpu, threads)
        self.log_target = log_target(cpu)
        self._features = cpu_features(resolve_cpu(cpu))

    def lower(self, mod: tvm.IRModule) -> tvm.IRModule:
        """A model module as fused, unscheduled functions."""
        return lower(mod, self._features)

    def points(self, mod: tvm.IRModule) -> list[Point]:
        """The candidates for a workload, the default first."""
        return points(mod)

    def candidate(self, mod: tvm.IRModule, point: Point) -> Schedule:
        """The schedule of a workload at a point."""
        return candidate(mod, point)
