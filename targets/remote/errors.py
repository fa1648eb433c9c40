"""What goes wrong with boards, each a sentence that is the user's to act on."""

from __future__ import annotations

from ...passes.errors import ToolError, UserError


class NoBoardError(UserError):
    """No board has the key, or none becomes free."""


class OtherVersionError(UserError):
    """A board's server is of another TVM."""


class BoardsLostError(ToolError):
    """A task has lost every board that it was given to, or there is no other."""


class RemoteFailure(ToolError):
    """What was to run on a board failed there, and the board lives.

    Args:
        status: `error`, `timeout` or `crash`, as of a candidate.
        reason: What happened.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
