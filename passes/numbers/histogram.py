"""A histogram of a stream of values, in memory that does not grow with their number."""

from __future__ import annotations

import math

import numpy as np

BINS = 2048
"""Bins on either side of zero, a power of two."""
LEAST_EXPONENT = -116
"""Of the reach of the bins; below, one over their width is no float32."""

_BLOCK = 1 << 16
"""Values that are counted at a time: so many stay in a cache."""


class Histogram:
    """Counts of positive and negative values in bins of one width.

    The bins on one side reach to a power of two, the first above the largest magnitude so far. So it does not depend on how
    values are divided into arrays, nor on their order, and histograms of one tensor can be added.

    Args:
        bins: Bins on either side of zero, a power of two.

    Attributes:
        low: The smallest value so far, exactly; 0 before the first.
        high: The largest value so far, exactly; 0 before the first.
        count: How many values there were.
        zeros: How many of them were exactly zero.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._bins = bins
        self._exponent: int | None = None
        self._counts = np.zeros(2 * bins, np.int64)
        self.low = self.high = 0.0
        self.count = 0
        self.zeros = 0

    @staticmethod
    def of_counts(counts: np.ndarray, low: float, high: float, count: int, zeros: int) -> Histogram:
        """A histogram that was counted elsewhere.

        Args:
            counts: int (2 * BINS,), zeros in the bin above zero, of the width that the extremes ask for.
            low: The smallest value.
            high: The largest value.
            count: How many values there were.
            zeros: How many values were exactly zero.
        """
        made = Histogram(len(counts) // 2)
        made._see(low, high, count, zeros)
        made._counts += counts
        return made

    @staticmethod
    def of_extremes(low: float, high: float) -> Histogram:
        """One that knows extremes alone."""
        made = Histogram(2)
        made.low, made.high, made.count = low, high, 1
        return made

    def add(self, values: np.ndarray) -> None:
        """Count the elements of an array of finite floats."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        self._see(low, high, values.size, values.size - int(np.count_nonzero(values)))
        if self._exponent is None:
            # Nothing but zeros so far.
            self._counts[self._bins] += values.size
            return
        flat = values.reshape(-1)
        factor = np.float32(1.0 / self._width)
        for start in range(0, flat.size, _BLOCK):
            index = np.floor(flat[start : start + _BLOCK] * factor).astype(np.int64)
            index += self._bins
            self._counts += np.bincount(index, minlength=2 * self._bins)

    def merge(self, other: Histogram) -> None:
        """Add what another histogram, of as many bins, has counted."""
        if other.count == 0:
            return
        self._see(other.low, other.high, other.count, other.zeros)
        if self._exponent is None or other._exponent is None:
            self._counts[self._bins] += other.count
            return
        self._counts += _coarser(other._counts, self._exponent - other._exponent)

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value so far."""
        return self.low, self.high

    @property
    def _width(self) -> float:
        return 0.0 if self._exponent is None else 2.0**self._exponent / self._bins

    def _see(self, low: float, high: float, count: int, zeros: int) -> None:
        self.low = min(self.low, low) if self.count else low
        self.high = max(self.high, high) if self.count else high
        self.count += count
        self.zeros += zeros
        self._reach(max(abs(low), abs(high)))

    def _reach(self, limit: float) -> None:
        if limit == 0.0:
            return
        exponent = max(math.frexp(limit)[1], LEAST_EXPONENT)
        if self._exponent is None:
            self._exponent = exponent
        elif exponent > self._exponent:
            self._counts = _coarser(self._counts, exponent - self._exponent)
            self._exponent = exponent

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """(centres, counts) of the bins between the smallest and the largest value; zeros are not counted."""
        centres = (np.arange(-self._bins, self._bins) + 0.5) * self._width
        counts = self._without_zeros()
        used = np.nonzero(counts)[0]
        if used.size == 0:
            return np.zeros(0), np.zeros(0, np.int64)
        part = slice(used[0], used[-1] + 1)
        return np.clip(centres[part], self.low, self.high), counts[part]

    def _without_zeros(self) -> np.ndarray:
        """The counts of values other than zero, which is always representable and would hide the rest if it is frequent."""
        counts = self._counts.copy()
        counts[self._bins] -= self.zeros
        return counts

    def quantile(self, fraction: float) -> float:
        """The value below which a fraction of the values other than zero lies, to the width of a bin; exact at 0 and 1."""
        if fraction <= 0.0 or self.count == self.zeros:
            return self.low
        if fraction >= 1.0:
            return self.high
        counts = self._without_zeros()
        wanted = fraction * (self.count - self.zeros)
        reached = np.cumsum(counts)
        index = int(np.searchsorted(reached, wanted))
        before = float(reached[index - 1]) if index else 0.0
        inside = (wanted - before) / max(float(counts[index]), 1.0)
        value = (index - self._bins + inside) * self._width
        return float(np.clip(value, self.low, self.high))


def _coarser(counts: np.ndarray, doublings: int) -> np.ndarray:
    """The counts in bins that are 2 ** doublings as wide, as many of them."""
    bins = counts.size // 2
    for _ in range(min(doublings, bins.bit_length())):
        pairs = counts.reshape(-1, 2).sum(1)
        counts = np.zeros_like(counts)
        counts[bins // 2 : bins // 2 + bins] = pairs
    return counts
