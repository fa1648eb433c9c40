"""What the tuner asks of x86."""

from __future__ import annotations

from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from ..kernels.decisions import Choice, Decisions
from .host import cpu_features, log_names, log_target, resolve_cpu, tvm_target
from .layer import NotScheduledError
from .lower import lower
from .peak import peak_products
from .space import choice_of, schedule_as, work_of


class X86Tuning:
    """Functions, what may be decided for them, and their schedules.

    Args:
        cpu: What to compile candidates for: `native`, `portable` or an LLVM name.
        threads: Threads that a candidate may use.
    """

    name = "x86"

    def __init__(self, cpu: str = "native", threads: int = 1) -> None:
        self.threads = threads
        self._cpu = cpu
        self.target = tvm_target(cpu, threads)
        """What candidates are compiled for."""
        self.log_target = log_target(cpu)
        """The target as the log records it, without what is particular to a machine."""
        self.core = log_names(cpu)[0]
        """What stands for the CPU in the keys of the log."""
        self._features = cpu_features(resolve_cpu(cpu))

    def lower(self, mod: tvm.IRModule) -> tvm.IRModule:
        """A model module as fused, unscheduled functions."""
        return lower(mod, self._features)

    def choice(self, mod: tvm.IRModule) -> Choice | None:
        """What may be decided for a workload; None where no template fits it."""
        try:
            return choice_of(mod)
        except NotScheduledError:
            return None

    def work(self, mod: tvm.IRModule) -> int:
        """Multiply-accumulates of a workload, or other innermost operations."""
        return work_of(mod)

    def peak(self, choice: Choice) -> float | None:
        """What this machine does at most of the product that a workload sums up, a second; None of other workloads."""
        shape = choice.workload.shape
        return peak_products(shape["product"], self._cpu) if "product" in shape and shape["sums"] else None

    def schedule(self, mod: tvm.IRModule, decisions: Decisions) -> Schedule:
        """The schedule of a workload as is decided.

        Raises:
            NotScheduledError: It cannot be scheduled so.
        """
        return schedule_as(mod, decisions)
