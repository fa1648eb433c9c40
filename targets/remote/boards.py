"""Tasks for whichever board of a kind is free; a task whose board is lost goes to another."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ...passes.errors import UserError
from ..base import TargetDescription
from .board import Board
from .errors import BoardsLostError, NoBoardError, RemoteFailure
from .tracker import Place, Tracker

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds that one task may take."""
PATIENCE = 120.0
"""Seconds to wait for a board that serves somebody else."""

_MOST_LOST = 2
"""Boards that one task may lose: it might be what they die of."""
_GRACE = 15.0
"""Seconds beyond a task's time after which its board, which should have ended it, counts as lost."""
_GONE = 1.0
"""Seconds after which a tracker knows that a server has ended."""


class Boards:
    """The boards with one key at a tracker.

    Args:
        tracker: The tracker.
        key: Of the boards.
        timeout: Seconds that one task may take on a board.
        patience: Seconds to wait for a board that is busy.

    Attributes:
        lost: Addresses of boards that were lost.
    """

    def __init__(self, tracker: Tracker, key: str, timeout: float = TIMEOUT, patience: float = PATIENCE) -> None:
        self.tracker, self.key, self.timeout, self.patience = tracker, key, timeout, patience
        self.lost: list[str] = []

    def require(self) -> None:
        """Refuse to start without a board.

        Raises:
            NoBoardError: The tracker has none with this key.
            UserError: There is no tracker.
        """
        self.tracker.require(self.key)

    def servers(self) -> tuple[str, ...]:
        """The addresses of those that the tracker knows now."""
        return self.tracker.servers(self.key)

    def limited(self, timeout: float) -> Boards:
        """The same boards, for tasks that may take another time."""
        return Boards(self.tracker, self.key, timeout, self.patience)

    def do(self, task: Callable[[Board], T], what: str) -> T:
        """Do a task on a board that is free.

        Args:
            task: What to do. It may be done twice, and gives nothing that lives on the board.
            what: What it is, for messages: "measuring model.so".

        Raises:
            RemoteFailure: It failed, crashed or took too long, and its board lives.
            BoardsLostError: The board was lost, and so was the next, or there is no other.
            UserError: What the task raises; no tracker, no board with the key, a server of another TVM.
        """
        lost: list[str] = []
        while len(lost) < _MOST_LOST:
            try:
                place = self.tracker.request(self.key, self.patience)
            except NoBoardError as error:
                if lost:
                    raise self._all_lost(what, lost) from error
                raise
            try:
                return within(self.timeout + _GRACE, partial(self._at, place, task, what))
            except _Lost as error:
                lost.append(f"{place.address} ({error})")
                self.lost.append(place.address)
        raise self._all_lost(what, lost)

    def _at(self, place: Place, task: Callable[[Board], T], what: str) -> T:
        board = Board(place, self.timeout)
        start = time.monotonic()
        try:
            return task(board)
        except UserError:
            raise
        except Exception as error:
            # Its frames hold tensors and modules, and so the session.
            traceback.clear_frames(error.__traceback__)
            raise self._failure(board, error, what, time.monotonic() - start) from None
        finally:
            board.close()

    def _failure(self, board: Board, error: Exception, what: str, seconds: float) -> Exception:
        """What an error of TVM means: the task failed, crashed or took too long, or the board is lost."""
        if type(error).__name__ == "RPCSessionTimeoutError" or seconds >= self.timeout:
            limit = f"longer than {self.timeout:g} s on the board at {board.address}"
            return RemoteFailure("timeout", f"{what} took {limit}; give it more with --rpc-timeout")
        if board.answers():
            return RemoteFailure("error", f"{what} failed on the board at {board.address}: {summary(error)}")
        time.sleep(_GONE)
        if board.address in self.servers():
            return RemoteFailure("crash", f"{what} crashed on the board at {board.address}")
        return _Lost("its server has ended")

    def _all_lost(self, what: str, lost: list[str]) -> BoardsLostError:
        left = len(self.servers())
        rest = f"{left} left, which {'is' if left == 1 else 'are'} spared a third try" if left else "none is left"
        return BoardsLostError(f"{what} lost its boards with key '{self.key}', {' and '.join(lost)}; at the tracker {rest}")


@dataclass(frozen=True)
class BoardPool:
    """The boards of all targets.

    Attributes:
        tracker: The tracker that knows them.
        key: Of the boards, for all targets; None for each target's name.
        timeout: Seconds that one task may take on a board.
    """

    tracker: Tracker
    key: str | None = None
    timeout: float = TIMEOUT

    def of(self, target: TargetDescription) -> Boards:
        """The boards of a target."""
        return Boards(self.tracker, self.key or target.name, self.timeout)


class _Lost(Exception):
    """A board is lost."""


def within(seconds: float, task: Callable[[], T]) -> T:
    """Do a task in a thread of its own, which is left behind when it takes too long: a board without power answers nothing.

    Raises:
        _Lost: It takes longer.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(task())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        # What TVM raises is a RuntimeError, what the system does an OSError; anything else is a bug.
        raise _Lost(summary(failed[0])) if isinstance(failed[0], (RuntimeError, OSError)) else failed[0]
    if not done:
        raise _Lost("it does not answer any more")
    return done[0]


def summary(error: BaseException | Any) -> str:
    """The telling line of an error of TVM."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("File ", "at ", "Error caught from RPC call"))]
    return re.sub(r"^.*?(Check failed|Error): ", "", telling[-1])[:300] if telling else type(error).__name__
