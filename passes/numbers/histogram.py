"""A histogram of a stream of values, in memory that does not grow with their number."""

from __future__ import annotations

import numpy as np


class Histogram:
    """Counts of positive and negative values in bins of one width, which doubles when a value lies beyond the last bin.

    Args:
        bins: Bins on either side of zero, an even number.

    Attributes:
        low: The smallest value so far, exactly; 0 before the first.
        high: The largest value so far, exactly; 0 before the first.
        count: How many values there were.
        zeros: How many of them were exactly zero.
    """

    def __init__(self, bins: int = 2048) -> None:
        self._bins = bins
        self._width = 0.0
        self._counts = np.zeros(2 * bins, np.int64)
        self.low = self.high = 0.0
        self.count = 0
        self.zeros = 0

    def add(self, values: np.ndarray) -> None:
        """Count the elements of an array of finite floats."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        self.low = min(self.low, low) if self.count else low
        self.high = max(self.high, high) if self.count else high
        self.count += values.size
        self.zeros += values.size - int(np.count_nonzero(values))
        self._reach(max(abs(low), abs(high)))
        if self._width == 0.0:
            # Nothing but zeros so far.
            self._counts[self._bins] += values.size
            return
        index = np.floor(values.reshape(-1) * np.float32(1.0 / self._width)).astype(np.int32)
        np.clip(index, -self._bins, self._bins - 1, out=index)
        index += self._bins
        self._counts += np.bincount(index, minlength=2 * self._bins)

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest value so far."""
        return self.low, self.high

    def _reach(self, limit: float) -> None:
        if limit == 0.0:
            return
        if self._width == 0.0:
            self._width = limit / self._bins
        while limit > self._width * self._bins * (1 + 1e-6):
            pairs = self._counts.reshape(-1, 2).sum(1)
            half = self._bins // 2
            self._counts = np.zeros_like(self._counts)
            self._counts[half : half + self._bins] = pairs
            self._width *= 2

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
