"""What there is to tune in a model on x86: its functions, each once, with how often and on what they run."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from ..passes._tvm import tvm
from ..targets.x86.lower import call_sites, constant_arguments, prim_funcs, workload
from ..targets.x86.tuning import X86Tuning
from .search import Task


@dataclass
class Function:
    """A function to tune.

    Attributes:
        name: Its name in the lowered module.
        mod: The function alone, named `main`.
        constants: Values of its constant arguments at the first call, by position.
    """

    name: str
    mod: tvm.IRModule
    constants: dict[int, np.ndarray] = field(default_factory=dict)


def extract_tasks(mod: tvm.IRModule, target: X86Tuning) -> list[Task]:
    """The functions of a model module that have something to decide, those with most work first.

    Functions that differ in nothing that their cost depends on are one task.

    Args:
        mod: A model module with its parameter values attached.
        target: What to tune for.
    """
    lowered = target.lower(mod)
    sites = call_sites(lowered)
    tasks: dict[str, Task] = {}
    for name, func in prim_funcs(lowered).items():
        alone = workload(func)
        choice = target.choice(alone) if name in sites else None
        if choice is None or len(choice.space) < 2:
            continue
        calls = sites[name]
        if choice.workload.key in tasks:
            tasks[choice.workload.key].calls += len(calls)
            tasks[choice.workload.key].result.calls += len(calls)
        else:
            subject = Function(name, alone, constant_arguments(calls[0]))
            tasks[choice.workload.key] = Task(choice, len(calls), subject, target.work(alone))
    return sorted(tasks.values(), key=lambda task: -task.work * task.calls)


def function_inputs(function: Function, seed: int, positive: bool = False) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments for running a function: the model's own constants, everything else random, the same for the same seed.

    Args:
        function: The function.
        seed: Of the random values.
        positive: Draw floats from [0.1, 1) instead of a normal distribution, for functions such as a logarithm.

    Returns:
        The inputs and an array of the output's shape and dtype.
    """
    # A checksum of the name, since `hash` differs from process to process.
    random = np.random.default_rng([seed, zlib.crc32(function.name.encode())])
    params = list(function.mod["main"].params)
    arrays = []
    for index, param in enumerate(params):
        shape, dtype = tuple(int(dim) for dim in param.ty.shape), np.dtype(str(param.ty.dtype))
        if index in function.constants:
            arrays.append(np.array(function.constants[index], order="C"))
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
