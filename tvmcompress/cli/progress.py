"""Progress bars on standard error; silent where that is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from .common import errors


class Bars:
    """One line for each step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int, text: str | None = None) -> None:
        """A step is so far; the first call makes its line, which says `text` instead of its name where there is one."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None)
        # A step that does not say how far it is has a bar that only moves.
        known = total > 1 or done >= total
        self._progress.update(self._tasks[name], total=total if known else None, completed=done, description=text or name)


@contextmanager
def bars() -> Iterator[Bars]:
    """Progress bars that vanish when the work is done."""
    console = errors()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)
