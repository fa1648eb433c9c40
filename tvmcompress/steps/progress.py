"""How far a compression is: which steps were finished, how long they took, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, and how much of it is done, out of how much."""


@dataclass(frozen=True)
class FinishedStep:
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
class ProgressReporter:
    """Times steps, and passes on how far they are.

    Attributes:
        on_progress: Called with every change.
        finished: What was done so far, in order.
    """

    on_progress: Progress | None = None
    finished: list[FinishedStep] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time what stands inside; the callable takes what came of it."""
        messages: list[str] = []
        self.update(name, 0, 1)
        start = time.perf_counter()
        try:
            yield messages.append
        finally:
            self.finished.append(FinishedStep(name, time.perf_counter() - start, " ".join(messages)))
        self.update(name, 1, 1)

    def update(self, name: str, done: int, total: int) -> None:
        """Report how much of a step is done."""
        if self.on_progress is not None:
            self.on_progress(name, done, total)

    def counter(self, name: str) -> Callable[[int, int, str], None]:
        """The progress callback of a pass, which reports for the step of this name."""
        return lambda done, total, _: self.update(name, done, total)
