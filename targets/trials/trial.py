"""One candidate and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...passes._tvm import tirx
from ..aot.plan import ALIGNMENT


@dataclass(frozen=True)
class Trial:
    """A kernel on the arguments that it is tried with.

    Attributes:
        func: The function; its last parameter is the output. None once it is compiled.
        arguments: Values of the parameters before it.
        activations: Which of them are no constants.
        expected: What it must compute, flat.
        inplace: The argument whose memory the output may take: this is tried as well.
        options: LLVM options that it is compiled with, separated by spaces.
    """

    func: tirx.PrimFunc | None
    arguments: Sequence[np.ndarray]
    activations: Sequence[int]
    expected: np.ndarray
    inplace: int | None = None
    options: str = ""

    @property
    def constant_bytes(self) -> int:
        """Bytes of the constants as they lie in a library, equal ones once."""
        constants = [value for index, value in enumerate(self.arguments) if index not in self.activations]
        sizes = {value.tobytes(): value.nbytes for value in constants}
        return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes.values())


MakeTrial = Callable[[], Trial | None]
"""Makes a candidate, in the process that compiles it; None where there is no such kernel."""


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate.

    Attributes:
        status: "ok", or why it does not count: "wrong" (it computed something else, or wrote where it must not), "error" (it
            cannot be compiled), "timeout", "crash", or "lost" (there is nowhere left to run it).
        cost: Of one call: executed instructions, cycles, or seconds.
        turns: Its costs one by one, where it was measured in turns with others.
        flash_bytes: Of its code and constants.
        workspace_bytes: Of its workspaces.
        constant_bytes: Of its constants.
        workspaces: How many it has.
        library: The functions that it calls, as of `kernels.records.KernelRecord`.
        reason: What happened to one that does not count.
    """

    status: str
    cost: float = 0
    turns: tuple[float, ...] = ()
    flash_bytes: int = 0
    workspace_bytes: int = 0
    constant_bytes: int = 0
    workspaces: int = 0
    library: tuple[str, ...] = ()
    reason: str | None = None
