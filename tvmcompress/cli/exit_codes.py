"""With which codes commands end: the one table of them, shown by `--help` and in docs/reference.md."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit code says. Errors carry theirs, see `errors.UserError.exit_code`."""

    DONE = 0
    BUG = 1
    INPUT = 2
    BUDGET = 3
    ACCURACY = 4
    TOOLS = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """What it says, in a few words."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "everything that was asked for is there",
    ExitCode.BUG: "a bug of ours",
    ExitCode.INPUT: "what the command was given cannot be used",
    ExitCode.BUDGET: "a budget cannot be reached, or the model does not fit the board",
    ExitCode.ACCURACY: "the accuracy is worse than the gate allows (--gate-drop, --gate-accuracy)",
    ExitCode.TOOLS: "a compiler, an emulator or a package is missing or failed",
    ExitCode.INTERRUPTED: "interrupted",
}


def listing() -> str:
    """All of them, on one line."""
    return "; ".join(f"{code.value} {code.meaning}" for code in ExitCode)
