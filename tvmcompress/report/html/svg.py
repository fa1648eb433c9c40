"""Drawing in SVG: elements, axes with round numbers, and text that does not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 440
"""Units across a chart; pages scale it, so that text keeps a size that can be read on a phone."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
"""Told apart by everybody (Okabe and Ito), also in print."""


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """An element; of attributes `_` stands for `-`, and None leaves one out."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    given = "".join(f' {name}="{escape(_plain(value))}"' for name, value in named.items())
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{tag}{given}>{inside}</{tag}>") if inside or tag in ("svg", "g") else Markup(f"<{tag}{given}/>")


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def drawing(height: float, title: str, parts: Iterable[str]) -> Markup:
    """A picture with a title for those who cannot see it."""
    return element(
        "svg",
        element("title", title),
        *parts,
        viewBox=f"0 0 {WIDTH} {_plain(float(height))}",
        role="img",
        class_="chart",
        xmlns="http://www.w3.org/2000/svg",
    )


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "label") -> Markup:
    """Words at a place."""
    return element("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=kind)


def text_width(words: str, size: float = 11.0) -> float:
    """About how wide words are."""
    return 0.56 * size * len(words)


def shortened(words: str, most: int) -> str:
    """Words without their middle where there are too many letters."""
    if len(words) <= most:
        return words
    left = (most - 1) // 2
    return f"{words[:left]}…{words[len(words) - (most - 1 - left):]}" if most > 2 else words[:most]


def round_steps(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover a range: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True)
class Axis:
    """One axis: which value is at which place.

    Attributes:
        steps: The numbers written on it, which cover it.
        start, end: Its ends, in units of the picture.
        logarithmic: Whether equal factors are equally long.
    """

    steps: tuple[float, ...]
    start: float
    end: float
    logarithmic: bool = False

    @staticmethod
    def of(
        values: Sequence[float], start: float, end: float, *, logarithmic: bool = False, count: int = 5, unit: float = 1.0
    ) -> Axis:
        """An axis for values.

        Args:
            values: What it must cover; all above zero where it is logarithmic.
            start, end: Its ends.
            logarithmic: Whether equal factors are equally long.
            count: About how many numbers stand on it.
            unit: Of which the numbers are round multiples.
        """
        low, high = min(values), max(values)
        if not logarithmic:
            return Axis(tuple(step * unit for step in round_steps(low / unit, high / unit, count)), start, end)
        low, high = low / unit, high / unit
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        every = max(1, math.ceil((last - first) / count))
        last = first + every * max(1, math.ceil((last - first) / every))
        factors = (1.0, 2.0, 5.0) if last - first <= 2 else (1.0,)
        steps = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
        below = max([step for step in steps if step <= low * 1.001], default=steps[0])
        above = min([step for step in steps if step >= high * 0.999], default=steps[-1])
        return Axis(tuple(unit * step for step in steps if below <= step <= max(above, below * 1.001)), start, end, True)

    def at(self, value: float) -> float:
        """Where a value is."""
        low, high = self.steps[0], self.steps[-1]
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (self.end - self.start) * ((value - low) / (high - low) if high > low else 0.5)
