"""What a search is for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UserError
from ..evaluation.output_comparison import OutputQuality
from ..search.precision_choice import drop
from ..targets.measurement import Measurement

Objective = Literal["latency", "flash", "ram", "energy"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True)
class Goal:
    """What is made small, and what must be kept.

    Attributes:
        target: That it is measured on.
        minimize: "latency" (on hardware the median time, under an emulator executed instructions), "flash", "ram", or "energy"
            where the hardware reports it.
        max_drop: Points of accuracy that may be lost; without labels, percent of answers that may change; where the model
            gives no answers, percent of the output's energy that may be noise.
        max_ram, max_flash: Bytes; None for no limit.

    Raises:
        UserError: `minimize` is nothing that targets measure, or a limit is not positive.
    """

    target: str
    minimize: Objective = "latency"
    max_drop: float = 1.0
    max_ram: int | None = None
    max_flash: int | None = None

    def __post_init__(self) -> None:
        if self.minimize not in OBJECTIVES:
            raise UserError(f"'{self.minimize}' is nothing that a search can make small; give {', '.join(OBJECTIVES)}")
        if not 0 <= self.max_drop <= 100:
            raise UserError(f"the accuracy cannot fall by at most {self.max_drop:g} points; give a number from 0 to 100")

    def cost(self, measured: Measurement) -> float:
        """What is made small: milliseconds, executed instructions, bytes or millijoules.

        Raises:
            UserError: Energy is to be made small, and none was reported.
        """
        if self.minimize == "energy":
            if measured.energy is None:
                raise UserError(no_energy(self.target))
            return measured.energy.millijoules
        if self.minimize == "flash":
            return float(measured.flash_bytes or 0)
        if self.minimize == "ram":
            return float(measured.ram_bytes or 0)
        return measured.latency.median_ms if measured.latency is not None else float(measured.instructions or 0)

    def unit(self, measured: Measurement) -> str:
        """Of `cost`: "ms", "instructions", "bytes" or "mJ"."""
        if self.minimize == "energy":
            return "mJ"
        if self.minimize != "latency":
            return "bytes"
        return "ms" if measured.latency is not None else "instructions"

    def exceeded(self, measured: Measurement) -> str | None:
        """The first limit that is not kept, and what is taken of it; None where all are kept."""
        limits = (("flash", measured.flash_bytes, self.max_flash), ("RAM", measured.ram_bytes, self.max_ram))
        for name, taken, limit in limits:
            if limit is not None and taken is not None and taken > limit:
                return f"{name} {taken:,} bytes"
        return None


def no_energy(target: str) -> str:
    """The sentence for a target that does not report energy."""
    return f"what runs {target} here reports no energy, and it is not estimated; minimize latency, flash or ram"


def lost(quality: OutputQuality, original: OutputQuality) -> float:
    """What `Goal.max_drop` limits."""
    if original.accuracy is None and original.agreement is None:
        return 100 * quality.error
    return drop(quality, original)


def doubt(quality: OutputQuality, samples: int) -> float:
    """Three standard deviations of `lost` on so many samples, about: answers that differ fall on either side."""
    if quality.agreement is None:
        return 100 * quality.error
    changed = max(1 - quality.agreement, 1 / samples)
    return 300 * math.sqrt(changed / samples)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the points that no other one beats in both values, by rising first value."""
    order = sorted(range(len(points)), key=lambda index: points[index])
    best, found = math.inf, []
    for index in order:
        if points[index][1] < best:
            best = points[index][1]
            found.append(index)
    return found
