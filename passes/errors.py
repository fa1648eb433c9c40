"""Errors that are the user's to mend, each a single sentence: what is wrong, where, and what to do."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave cannot be used. The command line prints the sentence and exits with code 2."""


class UnsupportedOperatorError(UserError):
    """An operator that cannot be imported, lowered or compiled, named together with the node that uses it."""


class MissingToolError(UserError):
    """A compiler, emulator or package that is not installed; the sentence says which package brings it."""


class DiskFullError(UserError):
    """A file cannot be written for want of room: nothing that is tried next can succeed either."""
