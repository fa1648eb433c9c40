"""Who decides the parameters of a schedule template: the defaults, or a point of the search space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tvm.s_tir import Schedule


class Chooser(Protocol):
    """Decides the parameters of a template."""

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        """Two factors of a loop's extent, the inner one at most `limit`, by default `innermost`."""

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        """One of `options`."""

    def flag(self, default: bool) -> bool:
        """Yes or no, where the answer changes the structure."""


class Defaults:
    """Takes the defaults: a schedule without a search."""

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        extent = int(schedule.get(loop).extent)
        return schedule.sample_perfect_tile(loop, 2, limit, decision=[extent // innermost, innermost])

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        probabilities = [1.0 / len(options)] * len(options)
        return schedule.sample_categorical(list(options), probabilities, decision=list(options).index(default))

    def flag(self, default: bool) -> bool:
        return default


class Survey(Defaults):
    """Takes the defaults and notes what else could have been chosen.

    Attributes:
        options: The options of each choice, in the order in which the template asks.
        default: The default of each choice.
    """

    def __init__(self) -> None:
        self.options: list[list[int]] = []
        self.default: list[int] = []

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        extent = int(schedule.get(loop).extent)
        self.options.append([count for count in range(1, min(extent, limit) + 1) if extent % count == 0])
        self.default.append(innermost)
        return super().tile(schedule, loop, innermost, limit)

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        self.options.append(list(options))
        self.default.append(default)
        return super().pick(schedule, options, default)

    def flag(self, default: bool) -> bool:
        self.options.append([0, 1])
        self.default.append(int(default))
        return default


class Pinned(Defaults):
    """Takes the choices of a point of the search space.

    Args:
        point: One value for each choice, in the order of `Survey.options`.
    """

    def __init__(self, point: Sequence[int]) -> None:
        self._rest = list(point)

    def tile(self, schedule: Schedule, loop: Any, innermost: int, limit: int) -> Sequence[Any]:
        return super().tile(schedule, loop, self._rest.pop(0), limit)

    def pick(self, schedule: Schedule, options: Sequence[int], default: int) -> Any:
        return super().pick(schedule, options, self._rest.pop(0))

    def flag(self, default: bool) -> bool:
        return bool(self._rest.pop(0))
