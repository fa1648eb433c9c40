"""Figures of layers as bars; each is a list of rows, which pages draw so that long names fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...evaluation.noise import LayerNoise
from ...measuring.record import BuildRecord
from ..layers import LayerFigures
from ..units import count, percent, size

_MOST = 60
"""Rows of one chart; of larger networks the greatest, in the order of the network."""
_EXACT_DB, _POOR_DB = 60.0, 10.0


@dataclass(frozen=True)
class Bar:
    """One row.

    Attributes:
        name: Of the layer.
        share: How long the bar is, 0 to 1.
        words: The figure.
        mark: "poor" for what should be looked at.
    """

    name: str
    share: float
    words: str
    mark: str = ""


@dataclass(frozen=True)
class Bars:
    """One chart.

    Attributes:
        title: What it shows.
        note: What to know of it.
        rows: Its rows.
        left_out: How many layers it does not show.
    """

    title: str
    note: str
    rows: tuple[Bar, ...]
    left_out: int = 0


def macs_bars(figures: Iterable[LayerFigures]) -> Bars | None:
    """Multiply-accumulates by layer."""
    values = [(layer.name, float(layer.macs)) for layer in figures if layer.macs]
    return _amounts("Multiply-accumulates", "Of one inference.", values, count)


def bytes_bars(figures: Iterable[LayerFigures]) -> Bars | None:
    """Bytes of constants by layer."""
    values = [(layer.name, float(layer.param_bytes)) for layer in figures if layer.param_bytes]
    return _amounts("Bytes of weights", "With the biases and the multipliers of integer layers.", values, size)


def instruction_bars(build: BuildRecord) -> Bars | None:
    """Executed instructions by layer on a target."""
    measured = build.measurement
    if measured is None or not measured.layers:
        return None
    values = [(name, float(value)) for name, value in measured.layers.items() if value]
    return _amounts(f"Instructions on {build.target}", "Executed under an emulator: exact, and no time.", values, count)


def noise_bars(layers: Iterable[LayerNoise]) -> Bars | None:
    """Signal-to-noise ratio by layer against the original."""
    rows = []
    for layer in layers:
        exact = math.isinf(layer.snr_db)
        share = 1.0 if exact else min(max(layer.snr_db / _EXACT_DB, 0.0), 1.0)
        words = "exact" if exact else f"{layer.snr_db:.1f} dB"
        rows.append(Bar(layer.name, share, words, "poor" if layer.snr_db < _POOR_DB else ""))
    note = f"Against the original, of the channels kept: more is better, below {_POOR_DB:g} dB little of the result is left."
    kept, left_out = _kept(rows, lambda bar: -bar.share)
    return Bars("Signal-to-noise ratio", note, tuple(kept), left_out) if rows else None


def _amounts(title: str, note: str, values: list[tuple[str, float]], words: object) -> Bars | None:
    assert callable(words)
    if not values:
        return None
    most, total = max(value for _, value in values), sum(value for _, value in values)
    rows = [Bar(name, value / most, f"{words(value)} · {percent(value / total, 0)}") for name, value in values]
    kept, left_out = _kept(rows, lambda bar: bar.share)
    return Bars(title, note, tuple(kept), left_out)


def _kept(rows: list[Bar], weight: object) -> tuple[list[Bar], int]:
    assert callable(weight)
    if len(rows) <= _MOST:
        return rows, 0
    least = sorted((weight(row) for row in rows), reverse=True)[_MOST - 1]
    kept = [row for row in rows if weight(row) >= least][:_MOST]
    return kept, len(rows) - len(kept)
