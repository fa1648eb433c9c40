"""What a search has found, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ..evaluation.accuracy import Evaluation
from ..exploration.record import SearchPoint, SearchResult
from .plots import new_figure, save_figure
from .tables import plain_table
from .units import count, duration, energy, factor, percent, size


def search_table(result: SearchResult, evaluations: Mapping[int, Evaluation] | None = None) -> RenderableType:
    """One row a point of the front, the cheapest first.

    Args:
        result: What was found.
        evaluations: By number of the point, the quality on samples that the search has not seen.
    """
    unseen = evaluations or {}
    table = plain_table("The front: points that no other one beats")
    table.add_column("point", style="bold", no_wrap=True)
    table.add_figures(_lost_heading(result))
    if unseen:
        table.add_figures("accuracy, unseen" if _scored(unseen) else "agreement, unseen")
    table.add_figures(_cost_heading(result), "gain", "flash", "RAM", "MACs")
    table.add_column("what it is")
    first = result.points[0].cost if result.points else None
    for number in result.front:
        point = result.point(number)
        table.add_row(
            str(number),
            f"{point.lost or 0.0:.2f}",
            *([_unseen(unseen.get(number))] if unseen else []),
            cost_text(result, point.cost),
            factor(first / point.cost) if first and point.cost else "",
            size(point.flash_bytes) if point.flash_bytes else "",
            size(point.ram_bytes) if point.ram_bytes else "",
            count(point.macs) if point.macs else "",
            point.words,
        )
    return Group(table, Text(_words(result), style="dim"))


def plot_search(result: SearchResult, path: Path) -> None:
    """Draw all points that were measured, what they lose against what they cost, and the front through the best.

    Raises:
        MissingToolError: matplotlib is not installed.
    """
    figure, axes = new_figure(8, 5)
    measured = [point for point in result.points if point.cost is not None and point.lost is not None]
    good = [point for point in measured if point.feasible and point.number not in result.front]
    bad = [point for point in measured if not point.feasible]
    best = [result.point(number) for number in result.front]
    for points, style, words in ((bad, "x", "over a limit"), (good, "o", "tried")):
        axes.plot(*_places(points), style, color="0.65", markersize=5, label=words)
    axes.plot(*_places(best), "o-", color="C0", drawstyle="steps-post", label="front")
    for point in best:
        axes.annotate(str(point.number), (point.cost, point.lost), textcoords="offset points", xytext=(4, 4), fontsize=8)
    axes.axhline(result.max_drop, color="C3", linestyle="--", linewidth=1, label=f"limit: {result.max_drop:g}")
    axes.set_xlabel(_cost_heading(result))
    axes.set_ylabel(_lost_heading(result))
    axes.set_title(f"{len(result.points)} points on {result.target}, {result.samples} samples")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def cost_text(result: SearchResult, cost: float | None) -> str:
    """A cost with its unit."""
    if cost is None:
        return ""
    if result.unit == "bytes":
        return size(round(cost))
    if result.unit == "mJ":
        return energy(cost)
    return duration(cost) if result.unit == "ms" else count(round(cost))


def _places(points: list[SearchPoint]) -> tuple[list[float], list[float]]:
    return [point.cost or 0.0 for point in points], [point.lost or 0.0 for point in points]


def _cost_heading(result: SearchResult) -> str:
    if result.minimize == "latency":
        return "an inference" if result.unit == "ms" else "instructions"
    return {"flash": "flash, bytes", "ram": "RAM, bytes", "energy": "energy of an inference"}[result.minimize]


def _lost_heading(result: SearchResult) -> str:
    if result.original.accuracy is not None:
        return "points lost"
    return "answers changed, %" if result.original.agreement is not None else "noise, %"


def _scored(unseen: Mapping[int, Evaluation]) -> bool:
    return any(evaluation.accuracy is not None for evaluation in unseen.values())


def _unseen(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return ""
    share = evaluation.agreement if evaluation.accuracy is None else evaluation.accuracy
    return "" if share is None else percent(share)


def _words(result: SearchResult) -> str:
    stages = [point.stage for point in result.points]
    left = {
        "could not hold or be made": stages.count("bounds"),
        "lost too much on few samples": stages.count("few samples"),
        "lost too much on all": stages.count("samples"),
        "could not be built": stages.count("build"),
    }
    parts = ", ".join(f"{number} {words}" for words, number in left.items() if number)
    right = result.original.accuracy
    accuracy = "" if right is None else f", of which the original has {percent(right)} right"
    sentence = f"{len(result.points)} points in all, {stages.count('measured')} measured" + (f"; {parts}" if parts else "")
    return f"{sentence}. Compared on {result.samples} samples{accuracy}."
