"""Targets whose kernels can be tuned under an emulator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...passes._tvm import relax, tvm
from ...passes.graph.module_params import detach_params
from ..base import Target
from ..integer_io import core_and_specs
from ..kernels.choose import Tuned
from ..kernels.decisions import Decide
from ..kernels.use_kernels import Makers, Site, survey_kernels
from ..tuning_log import LogChoice, TuningLog, chosen_logs
from .image import Emulator


class KernelPass(Protocol):
    """A pass that replaces operators by kernels."""

    spare: bool

    def prepared(self, mod: tvm.IRModule) -> tuple[tvm.IRModule, Callable[[Decide], Makers]]:
        """The module as kernels take it, and what makes them, given who decides."""


class TunableTarget(Target):
    """A target with kernels of its own."""

    @abstractmethod
    def emulator(self) -> Emulator:
        """Where candidates run."""

    @abstractmethod
    def kernel_passes(self, logs: Sequence[TuningLog] = (), **options: Any) -> list[Any]:
        """The passes that use this target's kernels, decided by logs; none where the core has no kernels."""

    @property
    def log_key(self) -> str:
        """What logs of this target are kept by: the core that LLVM compiles for.

        Code for two cores that it compiles for alike is the same, and so is what was measured of it.
        """
        return str(self.description.tvm.get("mcpu", self.description.core))

    def tuned(self, logs: Sequence[TuningLog]) -> Tuned | None:
        """What logs know of this target's kernels; None without any."""
        return Tuned(self.log_key, logs) if logs else None

    def logs(self, choice: LogChoice) -> list[TuningLog]:
        """The logs that a build consults.

        Raises:
            UserError: One of them is damaged.
        """
        return chosen_logs(self.log_key, choice)

    def survey(self, mod: tvm.IRModule) -> list[Site]:
        """What kernels decide in a model module, parameters attached; nothing in a float one."""
        core, _, _ = core_and_specs(mod)
        bare, params = detach_params(core)
        tensors = {name: tvm.runtime.tensor(value) for name, value in params.items()}
        bound = relax.transform.BindParams("main", tensors)(bare)
        found: list[Site] = []
        for kernel_pass in self.kernel_passes():
            prepared, makers = kernel_pass.prepared(bound)
            found += survey_kernels(prepared, makers, kernel_pass.spare)
            bound = kernel_pass(bound)
        return found
