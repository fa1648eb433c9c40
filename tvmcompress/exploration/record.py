"""What is kept of a search."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..evaluation.output_comparison import OutputQuality
from ..recipe.recipe import Recipe
from ..targets.record import Record

Stage = Literal["bounds", "few samples", "samples", "build", "measured"]


class SearchPoint(Record):
    """One combination that was tried.

    Attributes:
        number: Of the trial.
        words: What it is, in a few words.
        recipe: What was done with the model.
        build: Options of the build.
        stage: How far it went: refused by bounds ("bounds"), by the accuracy of few samples or of all, because it could not be
            built, or measured.
        reason: Why it went no further; None where it was measured.
        lost: What `Goal.max_drop` limits; None where it was not measured.
        quality: Of the outputs on the samples of the search (on few where it went no further).
        cost: Milliseconds, instructions or bytes, as the goal has it; None where it was not measured.
        macs: Multiply-accumulates; None where the model was not made.
        flash_bytes, ram_bytes: As measured.
        removed: By group, the fraction of its channels that is gone.
        seconds: That it took.
        feasible: Whether it keeps to all limits.
    """

    number: int
    words: str
    recipe: Recipe
    build: dict[str, Any] = Field(default={})
    stage: Stage
    reason: str | None = None
    lost: float | None = None
    quality: OutputQuality | None = None
    cost: float | None = None
    macs: int | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    removed: dict[str, float] = Field(default={})
    seconds: float = 0.0
    feasible: bool = False


class SearchResult(Record):
    """What a search has found so far.

    Attributes:
        target, minimize, max_drop, max_ram, max_flash: The goal.
        unit: Of costs.
        samples: On which points were compared.
        original: The original on these.
        points: All that were tried, in order.
        front: Numbers of the points that keep to all limits and that no other one beats in cost and accuracy, cheapest first.
        stopped: What ended it: "trials", "minutes" or "interrupt".
        seconds: That this run took.
    """

    target: str
    minimize: str
    max_drop: float
    max_ram: int | None = None
    max_flash: int | None = None
    unit: str
    samples: int
    original: OutputQuality
    points: tuple[SearchPoint, ...] = ()
    front: tuple[int, ...] = ()
    stopped: str = "trials"
    seconds: float = 0.0

    def point(self, number: int) -> SearchPoint:
        """The point of a trial."""
        return next(point for point in self.points if point.number == number)

    def chosen(self, count: int) -> list[SearchPoint]:
        """At most so many points of the front, spread evenly over it, the cheapest first."""
        if len(self.front) <= count:
            return [self.point(number) for number in self.front]
        places = {round(index * (len(self.front) - 1) / max(count - 1, 1)) for index in range(count)}
        return [self.point(self.front[place]) for place in sorted(places)]
