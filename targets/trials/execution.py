"""Running a program of candidates: what came back of it, and how emulators do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...passes.errors import ToolError
from ..emulators.plugin import plugin_argument, read_counts
from ..emulators.tools import run

Transport = Literal["file", "semihosting", "serial", "module"]
"""How a program gives its results: as any under an operating system, through the emulator, over a board's line, or as a module
of TVM's runtime that is asked for them."""


@dataclass(frozen=True)
class Ran:
    """What a program of candidates did.

    Attributes:
        data: Of each run that came to its end, in order, a byte that is 1 where it wrote nowhere beside its memory, and its
            output.
        costs: Of each run; none where that is not known.
        turns: The costs of each run one by one, where runs took turns.
        failure: Why the program did not come to its end.
        hung: Whether that was for its time.
        lost: Whether there is nowhere left to run programs.
    """

    data: bytes
    costs: Sequence[float] = ()
    turns: Sequence[tuple[float, ...]] = ()
    failure: str | None = None
    hung: bool = False
    lost: bool = False


def emulate(
    command: Callable[[Sequence[str], Path], Sequence[str | Path]],
    program: Path,
    folder: Path,
    nm: str,
    limit: float,
) -> Ran:
    """Run a program under an emulator that counts.

    Args:
        command: The emulator's command line, with arguments for the plugin.
        program: The program; it writes output.bin where it runs.
        folder: Where it runs.
        nm: The symbol lister of its tool chain.
        limit: Seconds that it may run.
    """
    argument, results = plugin_argument(program, nm, folder)
    failure = None
    try:
        run(command(["-plugin", argument], program), what="running candidates", timeout=limit, cwd=folder, lasting=True)
    except ToolError as error:
        failure = str(error)
    output = folder / "output.bin"
    data = output.read_bytes() if output.exists() else b""
    if failure is not None:
        # The counts are written at the end.
        return Ran(data, failure=failure, hung="was stopped after" in failure)
    return Ran(data, read_counts(results).regions)
