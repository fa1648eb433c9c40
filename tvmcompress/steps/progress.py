"""The steps of a compression: their times, what came of them, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, and how much of it is done, out of how much."""


@dataclass(frozen=True)
class Step:
    """One thing that was done.

    Attributes:
        name: What.
        seconds: How long it took.
        message: What came of it.
    """

    name: str
    seconds: float
    message: str


@dataclass
class Road:
    """Keeps the time, and tells how far the work is.

    Attributes:
        on_progress: Who is told.
        steps: What was done so far, in order.
    """

    on_progress: Progress | None
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time what stands inside; the callable takes what came of it."""
        said: list[str] = []
        self.tell(name, 0, 1)
        start = time.perf_counter()
        try:
            yield said.append
        finally:
            self.steps.append(Step(name, time.perf_counter() - start, " ".join(said)))
        self.tell(name, 1, 1)

    def tell(self, name: str, done: int, total: int) -> None:
        """How much of a step is done."""
        if self.on_progress is not None:
            self.on_progress(name, done, total)
