"""Taps of a depthwise convolution whose products are added up as halfwords."""

from __future__ import annotations

import numpy as np


def group_taps(weights: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Taps (T, C) int8 in groups whose sums of products fit halfwords for every int8 input; few groups."""
    w = weights.astype(np.int64)
    highest, lowest = np.maximum(127 * w, -128 * w), np.minimum(127 * w, -128 * w)
    groups: list[list[int]] = []
    for tap in sorted(range(len(w)), key=lambda t: -int(highest[t].max(initial=0))):
        for group in groups:
            taps = [*group, tap]
            if _fit(highest[taps], lowest[taps]):
                group.append(tap)
                break
        else:
            groups.append([tap])
    pairs = tuple(tuple(range(tap, min(tap + 2, len(w)))) for tap in range(0, len(w), 2))
    # Layers whose taps pair in order share their code.
    in_order = all(_fit(highest[list(pair)], lowest[list(pair)]) for pair in pairs)
    return pairs if in_order and len(pairs) <= len(groups) else tuple(tuple(sorted(group)) for group in groups)


def _fit(highest: np.ndarray, lowest: np.ndarray) -> bool:
    return bool(highest.sum(0).max() < 1 << 15 and lowest.sum(0).min() >= -(1 << 15))
