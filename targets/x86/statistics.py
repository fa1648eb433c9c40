"""The extremes and histograms of the tensors of a float model, from its compiled form.

Calibration looks at most tensors of a network. To hand them out would take longer than to compute them, so the operator
`x86_statistics` reads each where it is made, and what comes out is a few thousand counts a tensor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np

from ...passes._tvm import Constant, relax, tvm
from ...passes.graph.module_params import input_vars
from ...passes.graph.rebuild import Rebuilder, bindings
from ...passes.numbers.histogram import Histogram
from ..inputs import check_inputs
from ..integer_io import with_limits
from ..objects import available_cpus
from .compile import compile_module
from .kernels.statistics import as_histogram, x86_statistics
from .measure import thread_limit
from .target import float_specs


class TensorStatistics:
    """A float model compiled for this machine that tells what values its tensors take. Samples run side by side, one a thread.

    Args:
        mod: Parameters attached.
        tensors: By the name of a float32 variable, whether its histogram is wanted besides its extremes.
        threads: How many samples run at once; by default one a CPU, or as many as OMP_NUM_THREADS says where that is less.

    Raises:
        UserError: A function of the model cannot be compiled.
    """

    def __init__(self, mod: tvm.IRModule, tensors: Mapping[str, bool], threads: int | None = None) -> None:
        self._inputs = with_limits(float_specs(mod)[0], mod)
        observed, self._names = _observed(mod, tensors)
        compiled = compile_module(observed, threads=1, runs_here=True)
        self._threads = threads or _threads()
        self._machines: SimpleQueue[relax.VirtualMachine] = SimpleQueue()
        for _ in range(self._threads):
            self._machines.put(relax.VirtualMachine(compiled.executable.mod, tvm.cpu()))

    def __call__(self, inputs: Sequence[np.ndarray]) -> dict[str, Histogram | None]:
        """Run samples.

        Args:
            inputs: One array an input of `main`, axis 0 any multiple of the graph's.

        Returns:
            What each tensor's values are on all of them, by name; None where some are not finite. Where only extremes are
            wanted, the counts are 0.

        Raises:
            UserError: The inputs do not fit.
        """
        count = check_inputs(self._inputs, inputs)
        parts = [np.split(array, count) if array.ndim else [array] * count for array in inputs]
        found: dict[str, Histogram | None] = {name: Histogram() for name in self._names}
        with thread_limit(1), ThreadPoolExecutor(self._threads) as pool:
            for sample in pool.map(self._run, zip(*parts)):
                for name, result in zip(self._names, sample):
                    seen, known = as_histogram(result), found[name]
                    if seen is None or known is None:
                        found[name] = None
                    else:
                        known.merge(seen)
        return found

    def _run(self, sample: Sequence[np.ndarray]) -> list[np.ndarray]:
        machine = self._machines.get()
        try:
            results = machine["main"](*(tvm.runtime.tensor(np.asarray(array, order="C")) for array in sample))
            return [result.numpy() for result in results]
        finally:
            self._machines.put(machine)


def _observed(mod: tvm.IRModule, tensors: Mapping[str, bool]) -> tuple[tvm.IRModule, list[str]]:
    """A module that returns the statistics of its tensors, and their names in that order."""
    build = Rebuilder(mod)
    names: list[str] = []
    results: list[relax.Expr] = []

    def observe(var: relax.Var) -> None:
        if var.name in tensors and var.name not in names:
            made = build.emit(x86_statistics(build.values[var], tensors[var.name]), f"{var.name}.statistics")
            names.append(var.name)
            results.append(made)

    for var in input_vars(build.source):
        observe(var)
    for var, value in bindings(build.source):
        new = build.get(value)
        build.values[var] = new if isinstance(new, (relax.Var, Constant)) else build.emit(new, var.name)
        observe(var)
    return build.finish(relax.Tuple(results)), names


def _threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    most = available_cpus()
    return min(most, max(1, int(asked))) if asked.isdigit() else most
