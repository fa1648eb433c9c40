"""Targets whose kernels can be tuned under an emulator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...passes._tvm import tvm
from ..base import Target
from ..integer_io import bound_core
from ..kernels.choose import Tuned
from ..kernels.decisions import Decide
from ..kernels.records import core_of_board
from ..kernels.use_kernels import Makers, Site, survey_kernels
from ..tuning_log import LogChoice, TuningLog, chosen_logs, default_logs
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

    @property
    def board_key(self) -> str | None:
        """What records are keyed by that were measured on this very board; None of a core."""
        name = self.description.name
        return core_of_board(self.log_key, name) if name != self.description.core else None

    def tuned(self, logs: Sequence[TuningLog]) -> Tuned | None:
        """What logs know of this target's kernels; None without any."""
        return Tuned([key for key in (self.board_key, self.log_key) if key is not None], logs) if logs else None

    def logs(self, choice: LogChoice) -> list[TuningLog]:
        """The logs that a build consults: of a board those of the board, then those of its core.

        Raises:
            UserError: One of them is damaged.
        """
        own = default_logs(self.description.name) if self.board_key is not None and choice in (None, True) else []
        return own + chosen_logs(self.log_key, choice)

    def survey(self, mod: tvm.IRModule) -> list[Site]:
        """What kernels decide in a model module, parameters attached; nothing in a float one."""
        bound = bound_core(mod)
        found: list[Site] = []
        for kernel_pass in self.kernel_passes():
            prepared, makers = kernel_pass.prepared(bound)
            found += survey_kernels(prepared, makers, kernel_pass.spare)
            bound = kernel_pass(bound)
        return found
