"""What there is at a tracker: its boards, those that are free asked what they are."""

from __future__ import annotations

from ...passes.errors import UserError
from ..record import Record
from .boards import Boards
from .facts import Facts
from .tracker import Queue, Tracker

_ASKING = 10.0
"""Seconds that a board may take to answer."""


class Device(Record):
    """A board at a tracker.

    Attributes:
        key: Its key.
        address: Of its server, HOST:PORT.
        free: Whether it serves nobody.
        pending: How many clients wait for a board with this key.
        triple: What it is, as a target triple; None where it was not asked, or did not answer.
        facts: What it says of itself; None likewise.
        problem: Why it cannot be used.
    """

    key: str
    address: str
    free: bool
    pending: int
    triple: str | None = None
    facts: Facts | None = None
    problem: str | None = None


def devices(tracker: Tracker) -> list[Device]:
    """The boards of a tracker, by key and address.

    Raises:
        UserError: There is no tracker.
    """
    return [device for queue in tracker.queues() for device in _of(queue, tracker)]


def _of(queue: Queue, tracker: Tracker) -> list[Device]:
    """The boards of a key; a tracker gives them away one after the other, and does not say which are free."""
    found: dict[str, Device] = {}
    problem = None
    boards = Boards(tracker, queue.key, timeout=_ASKING, patience=1.0)
    for _ in range(queue.free):
        try:
            address, triple, facts = boards.do(lambda board: (board.address, board.triple, board.facts), "asking what it is")
        except UserError as error:
            problem = str(error)
            break
        found[address] = Device(key=queue.key, address=address, free=True, pending=queue.pending, triple=triple, facts=facts)
    for address in queue.servers:
        if address not in found:
            found[address] = Device(
                key=queue.key, address=address, free=queue.free == len(queue.servers), pending=queue.pending, problem=problem
            )
    return [found[address] for address in sorted(found)]
