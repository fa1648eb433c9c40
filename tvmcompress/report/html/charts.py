"""Charts: points with a front, and lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..units import size
from .svg import COLORS, WIDTH, Axis, drawing, element, shortened, text, text_width

_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 14, 40
_HEIGHT = 250
_WIDE_RANGE = 12
"""An axis whose values differ by more is logarithmic."""

Format = Callable[[float], str]


@dataclass(frozen=True)
class Point:
    """One point of a chart.

    Attributes:
        x, y: Its values.
        name: What is written beside it.
        marked: Whether it is the one that counts.
    """

    x: float
    y: float
    name: str
    marked: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: For the legend.
        points: Its points, from left to right.
    """

    name: str
    points: Sequence[tuple[float, float]]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats: none is as far left and as high, and better in one of both; from left to right."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not found or point.y > found[-1].y:
            found.append(point)
    return found


def scatter(points: Sequence[Point], title: str, x_words: str, y_words: str, x_format: Format, y_format: Format) -> Markup:
    """Points, and through those that no other beats a line: less is better to the right, more is better upwards.

    Args:
        points: At least one.
        title: What it shows.
        x_words, y_words: What stands at the axes.
        x_format, y_format: How their numbers are written.
    """
    xs, ys = [point.x for point in points], [point.y for point in points]
    wide = min(xs) > 0 and max(xs) > _WIDE_RANGE * min(xs)
    unit = 1024.0 if x_format is size and max(xs) > 4096 else 1.0
    x = Axis.of(xs if wide else [0.0, *xs], _LEFT, WIDTH - _RIGHT, logarithmic=wide, count=4, unit=unit)
    y = Axis.of(ys, _HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(x, y, x_words, y_words, x_format, y_format)]
    best = front(points)
    if len(best) > 1:
        corners = " ".join(f"{x.at(p.x):.1f},{y.at(p.y):.1f}" for p in best)
        parts.append(element("polyline", points=corners, class_="front"))
    taken = [(y.at(point.y) + 4, x.at(point.x) - 6, x.at(point.x) + 6) for point in points]
    for point in sorted(points, key=lambda p: -p.y):
        at, height = x.at(point.x), y.at(point.y)
        words = shortened(point.name, 30)
        parts.append(
            element(
                "circle",
                element("title", f"{point.name}: {x_format(point.x)}, {y_format(point.y)}"),
                cx=float(at),
                cy=float(height),
                r=6 if point.marked else 4.5,
                fill=COLORS[1] if point.marked else COLORS[0],
            )
        )
        left, lower = _free_place(at, height, text_width(words), taken)
        parts.append(text(left, lower, words, kind="label strong" if point.marked else "label"))
    return drawing(_HEIGHT, title, parts)


def _free_place(at: float, height: float, width: float, taken: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Where the words of a point can stand: the first place beside it that nothing else has taken."""
    right, left, above = at + 9, at - 9 - width, min(max(at - width / 2, _LEFT), WIDTH - 2 - width)
    sides = [side for side in (right, left) if side >= _LEFT and side + width <= WIDTH - 2]
    places = [
        *((side, height + 4.0) for side in sides),
        *((side, height + 4 + shift) for shift in (-14, 16, -28, 30, -42, 44, -56, 58) for side in (above, *sides)),
    ]
    inside = [place for place in places if 10 < place[1] < _HEIGHT - _BOTTOM - 2] or places
    for side, low in inside:
        if all(abs(low - other) >= 12 or side + width < start or side > end for other, start, end in taken):
            break
    else:
        side, low = inside[0]
    taken.append((low, side, side + width))
    return side, low


def lines(
    series: Sequence[Line], title: str, x_words: str, y_words: str, x_format: Format, y_format: Format
) -> tuple[Markup, list[tuple[str, str]]]:
    """Lines, and what their legend says: colors and names."""
    values = [point for line in series for point in line.points]
    x = Axis.of([point[0] for point in values], _LEFT, WIDTH - _RIGHT)
    y = Axis.of([point[1] for point in values], _HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(x, y, x_words, y_words, x_format, y_format)]
    legend = []
    for number, line in enumerate(series):
        color = COLORS[number % len(COLORS)]
        dashes = (None, "6 3", "2 3", "8 3 2 3")[number // len(COLORS) % 4]
        corners = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in line.points)
        named = element("title", line.name)
        parts.append(element("polyline", named, points=corners, class_="line", stroke=color, stroke_dasharray=dashes))
        parts += [element("circle", cx=float(x.at(a)), cy=float(y.at(b)), r=2.5, fill=color) for a, b in line.points]
        legend.append((color, line.name))
    return drawing(_HEIGHT, title, parts), legend


def _grid(x: Axis, y: Axis, x_words: str, y_words: str, x_format: Format, y_format: Format) -> list[Markup]:
    parts = []
    for step in y.steps:
        parts.append(element("line", x1=x.start, x2=x.end, y1=float(y.at(step)), y2=float(y.at(step)), class_="grid"))
        parts.append(text(x.start - 5, y.at(step) + 4, y_format(step), "end", "tick"))
    free = -100.0
    for step in x.steps:
        at, words = x.at(step), x_format(step)
        parts.append(element("line", x1=float(at), x2=float(at), y1=y.start, y2=float(y.start + 4), class_="axis"))
        anchor = "end" if at + text_width(words) / 2 > WIDTH else "middle"
        start = at - text_width(words) / (1 if anchor == "end" else 2)
        if start > free:
            parts.append(text(at, y.start + 16, words, anchor, "tick"))
            free = start + text_width(words) + 4
    parts.append(element("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    parts.append(text((x.start + x.end) / 2, _HEIGHT - 6, x_words, "middle", "words"))
    middle = (y.start + y.end) / 2
    turned = element("text", y_words, transform=f"translate(11 {middle:.1f}) rotate(-90)", text_anchor="middle", class_="words")
    return [*parts, turned]
