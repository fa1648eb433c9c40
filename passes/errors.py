"""Errors that are the user's to mend, each a single sentence: what is wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class UserError(ValueError):
    """Something the user gave cannot be used. The command line prints the sentence and exits with `exit_code`."""

    exit_code: ClassVar[int] = 2


class UnsupportedOperatorError(UserError):
    """An operator that cannot be imported, lowered or compiled, named together with the node that uses it."""


class LimitError(UserError):
    """A budget that cannot be met, or a board that a model does not fit."""

    exit_code = 3


class ToolError(UserError):
    """A compiler, a linker or an emulator that failed.

    Args:
        sentence: What failed, and what it said.
        log: The file with all that it said.
    """

    exit_code = 5

    def __init__(self, sentence: str, log: Path | None = None) -> None:
        super().__init__(sentence if log is None else f"{sentence}; all of its output is in {log}")
        self.sentence, self.log = sentence, log


class MissingToolError(UserError):
    """A compiler, emulator or package that is not installed; the sentence says which package brings it."""

    exit_code = 5


class DiskFullError(UserError):
    """A file cannot be written for want of room: nothing that is tried next can succeed either."""
