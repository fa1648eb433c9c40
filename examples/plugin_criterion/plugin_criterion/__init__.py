"""What another package adds to tvmcompress: an importance criterion, an observer, and a board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tvmcompress.passes import Group, Range
from tvmcompress.passes.pruning.importance import unit_values, weight_members
from tvmcompress.passes.quantization.observers import Observer
from tvmcompress.targets.micro.target import CortexMTarget


class Spread:
    """The standard deviation of a unit's weights: a filter of equal weights only blurs.

    Args:
        samples: Calibration samples, one array for each input; not needed here.
    """

    def __init__(self, samples: Sequence[np.ndarray] | None) -> None:
        pass

    def __call__(self, group: Group, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """One score for each unit of the group; larger is more important."""
        values = [unit_values(group, params, member) for member in weight_members(group)]
        return np.concatenate(values, axis=1).std(axis=1)


class ThreeSigma(Observer):
    """The mean of all values, and so many standard deviations on either side.

    Args:
        deviations: How many.
    """

    def __init__(self, deviations: float = 3.0) -> None:
        self.deviations = deviations
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def update(self, values: np.ndarray) -> None:
        """See one batch."""
        self.count += values.size
        self.sum += float(values.sum(dtype=np.float64))
        self.squares += float(np.square(values, dtype=np.float64).sum())

    def range(self) -> Range:
        """The range from everything seen."""
        if self.count == 0:
            return Range(0.0, 0.0)
        mean = self.sum / self.count
        reach = self.deviations * max(self.squares / self.count - mean**2, 0.0) ** 0.5
        return Range(mean - reach, mean + reach)


class AcmeBoards(CortexMTarget):
    """Boards of a known family: their descriptions are all there is."""

    descriptions = Path(__file__).parent / "boards"
