"""What there is to tune in a model: its functions, each once, with how often and on what they run."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..passes._tvm import tvm
from ..targets.x86.lower import call_sites, constant_arguments, prim_funcs, workload

_LEAST_SHARE = 0.01
"""Of a model's work: functions below it cannot change its latency."""


class TunableTarget(Protocol):
    """What the tuner asks of a target."""

    name: str
    threads: int
    target: tvm.target.Target
    """What candidates are compiled for."""
    log_target: tvm.target.Target
    """The target as the log records it, without what is particular to a machine."""

    def lower(self, mod: tvm.IRModule) -> tvm.IRModule:
        """A model module as fused, unscheduled functions."""

    def points(self, mod: tvm.IRModule) -> Sequence[Any]:
        """The candidates for a workload, the default first; none where there is nothing to choose."""

    def candidate(self, mod: tvm.IRModule, point: Any) -> Any:
        """The schedule of a workload at a point."""


@dataclass
class TuningTask:
    """A function to tune.

    Attributes:
        name: Its name in the lowered module.
        mod: The workload: the function alone, as the tuning log keys it.
        points: The candidates, the default first.
        calls: How often the model calls it.
        work: Multiply-accumulates, or other innermost operations, of one call.
        constants: Values of its constant arguments at the first call, by position.
    """

    name: str
    mod: tvm.IRModule
    points: Sequence[Any]
    calls: int
    work: int
    constants: dict[int, np.ndarray] = field(default_factory=dict)


def extract_tasks(mod: tvm.IRModule, target: TunableTarget) -> list[TuningTask]:
    """The functions of a model module that have something to tune and a share in its work, those with most work first.

    Args:
        mod: A model module with its parameter values attached.
        target: What to tune for.
    """
    lowered = target.lower(mod)
    sites = call_sites(lowered)
    tasks = []
    for name, func in prim_funcs(lowered).items():
        task_mod = workload(func)
        points = target.points(task_mod) if name in sites else ()
        if points:
            calls = sites[name]
            tasks.append(TuningTask(name, task_mod, points, len(calls), count_work(task_mod), constant_arguments(calls[0])))
    total = sum(task.work * task.calls for task in tasks)
    worthwhile = [task for task in tasks if task.work * task.calls >= _LEAST_SHARE * total]
    return sorted(worthwhile, key=lambda task: (-task.work * task.calls, task.name))


def count_work(mod: tvm.IRModule) -> int:
    """Iterations of the largest block of a function: multiply-accumulates where it is a convolution or a product."""
    from tvm.s_tir import Schedule

    schedule = Schedule(mod)
    sizes = []
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        sizes.append(int(np.prod([int(iv.dom.extent) for iv in schedule.get(block).iter_vars], dtype=np.int64)))
    return max(sizes, default=0)


def task_inputs(task: TuningTask, seed: int, positive: bool = False) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments for running a task: the model's own constants, everything else random, the same for the same seed.

    Args:
        task: The task.
        seed: Of the random values.
        positive: Draw floats from [0.1, 1) instead of a normal distribution, for functions such as a logarithm.

    Returns:
        The inputs and an array of the output's shape and dtype.
    """
    # A checksum of the name, since `hash` differs from process to process.
    random = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    params = list(task.mod["main"].params)
    arrays = []
    for index, param in enumerate(params):
        shape, dtype = tuple(int(dim) for dim in param.ty.shape), np.dtype(str(param.ty.dtype))
        if index in task.constants:
            arrays.append(np.array(task.constants[index], order="C"))
        elif dtype.kind == "f":
            value = random.uniform(0.1, 1.0, shape) if positive else random.standard_normal(shape)
            arrays.append(np.asarray(value, dtype))
        elif dtype == np.bool_:
            arrays.append(np.asarray(random.integers(0, 2, shape), dtype))
        else:
            # Wider integers are sums or indices in real models; their full range would only overflow.
            low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.itemsize == 1 else (-(2**14), 2**14)
            arrays.append(np.asarray(random.integers(max(low, np.iinfo(dtype).min), high, shape, endpoint=True), dtype))
    return arrays[:-1], arrays[-1]
