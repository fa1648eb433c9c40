"""Observers: from the values that a tensor takes to the range it is quantized in.

An observer sees one tensor's values batch by batch and keeps memory of fixed size. Those that need no more than the extremes or
the histogram of a batch can also be given that, by whoever has counted while the values were at hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np

from ..errors import UserError
from ..numbers.affine import Range
from ..numbers.histogram import Histogram
from ..plugins.registry import Registry


class Observer(ABC):
    """Watches one tensor.

    Attributes:
        reads: What it needs of a batch: the values themselves, or only their extremes or histogram, for `see`.
    """

    reads: ClassVar[Literal["values", "extremes", "histogram"]] = "values"

    @abstractmethod
    def update(self, values: np.ndarray) -> None:
        """See one batch of finite float values."""

    def see(self, batch: Histogram) -> None:
        """See one batch by its histogram; of those that read extremes alone its counts are not looked at."""
        raise NotImplementedError(f"{type(self).__name__} needs the values themselves")

    @abstractmethod
    def range(self) -> Range:
        """The range chosen from everything seen; [0, 0] when nothing was."""


OBSERVERS: Registry[Callable[..., Observer]] = Registry("observer", "tvmcompress.observers")
"""Classes of observers, or functions that make one, given their options as numbers by name."""

register_observer = OBSERVERS.register


def list_observers() -> list[str]:
    """Names of all observers."""
    return sorted(OBSERVERS)


def make_observer(name: str, **options: float) -> Observer:
    """A new observer of a registered kind.

    Args:
        name: One of `list_observers()`.
        options: Of the kind, for instance `percentile=99.9`.

    Raises:
        UserError: There is no such kind, or it does not take the options.
    """
    make = OBSERVERS[name]
    try:
        return make(**options)
    except TypeError:
        raise UserError(f"observer '{name}' does not take the options {', '.join(options)}") from None


@register_observer("minmax")
class MinMax(Observer):
    """The smallest and the largest value."""

    reads = "extremes"

    def __init__(self) -> None:
        self._range: Range | None = None

    def update(self, values: np.ndarray) -> None:
        """See one batch."""
        self._see(float(values.min()), float(values.max()))

    def see(self, batch: Histogram) -> None:
        """See one batch by its extremes."""
        self._see(*batch.ends)

    def _see(self, low: float, high: float) -> None:
        known = self._range
        self._range = Range(low, high) if known is None else Range(min(known.low, low), max(known.high, high))

    def range(self) -> Range:
        """The range so far."""
        return self._range or Range(0.0, 0.0)


@register_observer("moving_average")
class MovingAverage(Observer):
    """Exponential averages of the batches' smallest and largest values (Jacob et al., 2018, section 3.1).

    Args:
        momentum: Weight of a new batch, in (0, 1].
    """

    reads = "extremes"

    def __init__(self, momentum: float = 0.1) -> None:
        if not 0 < momentum <= 1:
            raise UserError(f"the momentum of a moving average must be in (0, 1], got {momentum}")
        self.momentum = momentum
        self._range: Range | None = None

    def update(self, values: np.ndarray) -> None:
        """See one batch."""
        self._see(float(values.min()), float(values.max()))

    def see(self, batch: Histogram) -> None:
        """See one batch by its extremes."""
        self._see(*batch.ends)

    def _see(self, low: float, high: float) -> None:
        if self._range is not None:
            low = self._range.low + self.momentum * (low - self._range.low)
            high = self._range.high + self.momentum * (high - self._range.high)
        self._range = Range(low, high)

    def range(self) -> Range:
        """The averages."""
        return self._range or Range(0.0, 0.0)


class HistogramObserver(Observer):
    """An observer that decides on a histogram."""

    reads = "histogram"

    def __init__(self) -> None:
        self.histogram = Histogram()

    def update(self, values: np.ndarray) -> None:
        """See one batch."""
        self.histogram.add(values)

    def see(self, batch: Histogram) -> None:
        """See one batch by its histogram."""
        self.histogram.merge(batch)


@register_observer("percentile")
class Percentile(HistogramObserver):
    """Leaves out the outermost values other than zero, the same share on both sides.

    Args:
        percentile: How much of them lies below the upper end, in percent, in (50, 100].
    """

    def __init__(self, percentile: float = 99.99) -> None:
        if not 50 < percentile <= 100:
            raise UserError(f"a percentile must be in (50, 100], got {percentile}")
        super().__init__()
        self.percentile = percentile

    def range(self) -> Range:
        """Between the two percentiles."""
        fraction = self.percentile / 100.0
        return Range(self.histogram.quantile(1.0 - fraction), self.histogram.quantile(fraction))


@register_observer("mse")
class MeanSquaredError(HistogramObserver):
    """The range with the smallest mean squared error of quantization, found by shrinking the ends in turn.

    Args:
        levels: How many integers there are.
    """

    _FACTORS = np.concatenate([np.linspace(1.0, 0.7, 16), np.linspace(0.66, 0.1, 15), np.geomspace(0.085, 0.02, 8)])

    def __init__(self, levels: int = 256) -> None:
        super().__init__()
        self.levels = levels

    def range(self) -> Range:
        """The best of the candidates."""
        centres, counts = self.histogram.bins()
        low, high = min(self.histogram.low, 0.0), max(self.histogram.high, 0.0)
        if counts.size == 0 or low == high:
            return Range(low, high)
        for _ in range(2):
            high = min((high * float(f) for f in self._FACTORS), key=lambda end: self._error(centres, counts, low, end))
            low = min((low * float(f) for f in self._FACTORS), key=lambda end: self._error(centres, counts, end, high))
        return Range(low, high, self.histogram.ends)

    def _error(self, centres: np.ndarray, counts: np.ndarray, low: float, high: float) -> float:
        if high == low:
            return np.inf
        scale = (high - low) / (self.levels - 1)
        lowest = np.rint(low / scale)
        nearest = np.clip(np.rint(centres / scale), lowest, lowest + self.levels - 1) * scale
        return float((np.square(nearest - centres) * counts).sum())


@register_observer("entropy")
class Entropy(HistogramObserver):
    """The range whose quantized distribution diverges least from the real one (Kullback-Leibler; Migacz, 2017).

    Args:
        levels: How many integers there are.
        candidates: How many ranges are tried.
    """

    def __init__(self, levels: int = 256, candidates: int = 64) -> None:
        super().__init__()
        self.levels = levels
        self.candidates = int(candidates)

    def range(self) -> Range:
        """The best of the candidates, which cut off what is larger than a limit on either side."""
        centres, counts = self.histogram.bins()
        low, high = min(self.histogram.low, 0.0), max(self.histogram.high, 0.0)
        if counts.size <= self.levels or low == high:
            return Range(low, high)
        largest = max(-low, high)
        limits = largest * np.geomspace(1.0, self.levels / counts.size, self.candidates)
        best = min(limits, key=lambda end: self._divergence(centres, counts, max(low, -end), min(high, end)))
        return Range(max(low, -float(best)), min(high, float(best)), self.histogram.ends)

    def _divergence(self, centres: np.ndarray, counts: np.ndarray, low: float, high: float) -> float:
        inside = (centres >= low) & (centres <= high)
        kept = counts[inside].astype(np.float64)
        if kept.size < 2:
            return np.inf
        real = kept.copy()
        # What is clipped is counted at the ends.
        real[0] += counts[centres < low].sum()
        real[-1] += counts[centres > high].sum()
        level = np.minimum((np.arange(kept.size) * self.levels) // kept.size, self.levels - 1)
        occupied = kept > 0
        mass = np.bincount(level, kept, self.levels)
        share = np.bincount(level, occupied, self.levels)
        model = np.where(occupied, mass[level] / np.maximum(share[level], 1), 0.0)
        used = real > 0
        p = real[used] / real.sum()
        q = np.maximum(model[used] / model.sum(), 1e-12)
        return float((p * np.log(p / q)).sum())
