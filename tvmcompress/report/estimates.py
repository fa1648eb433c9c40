"""Estimates beside measured figures, in words that cannot be taken for them."""

from __future__ import annotations

from collections.abc import Iterable

from ..measuring.record import BuildRecord


def cycle_sentences(builds: Iterable[BuildRecord]) -> list[str]:
    """A sentence for each model of a core: the estimated cycles of the builds, and what the estimates assume."""
    found: dict[tuple[str, str], list[str]] = {}
    for build in builds:
        estimate = None if build.measurement is None else build.measurement.cycle_estimate
        if estimate is not None:
            cycles = f"{build.model} on {build.target} about {estimate.cycles:,} cycles"
            found.setdefault((estimate.model, estimate.assumes), []).append(cycles)
    return [
        f"Estimated, not measured: {'; '.join(cycles)} (scheduling model of {model}; {assumes})"
        for (model, assumes), cycles in found.items()
    ]
