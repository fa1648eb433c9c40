"""Times of inferences as tables: percentiles, and other runtimes beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ..measuring.record import BuildRecord
from .tables import plain_table
from .units import duration, factor


def times_table(builds: Sequence[BuildRecord], percentiles: Sequence[float]) -> RenderableType:
    """One row a build that was timed: the median and the percentiles asked for."""
    table = plain_table("Times of an inference")
    table.add_column("model", style="bold")
    table.add_column("target")
    for heading in ("runs", "median", *(f"{percent:g} %" for percent in percentiles)):
        table.add_column(heading, justify="right", no_wrap=True)
    for build in builds:
        latency = None if build.measurement is None else build.measurement.latency
        if latency is None:
            continue
        found = [latency.percentile(percent) for percent in percentiles]
        cells = ["" if value is None else duration(value) for value in found]
        table.add_row(build.model, build.target, f"{latency.runs:,}", duration(latency.median_ms), *cells)
    return Group(Text(), table)


def runtimes_table(builds: Sequence[BuildRecord]) -> RenderableType:
    """One row a build that was timed in turns with other runtimes: medians, and how many times longer theirs are."""
    names = list(dict.fromkeys(result.runtime for build in builds for result in build.runtimes))
    table = plain_table("Other runtimes on this machine, in turns with ours")
    table.add_column("model", style="bold")
    for heading in ("ours", *names):
        table.add_column(heading, justify="right", no_wrap=True)
    problems: dict[str, list[str]] = {}
    for build in builds:
        if not build.runtimes or build.measurement is None or build.measurement.latency is None:
            continue
        own = build.measurement.latency.median_ms
        cells = {}
        for result in build.runtimes:
            if result.latency is not None:
                cells[result.runtime] = f"{duration(result.latency.median_ms)} ({factor(result.latency.median_ms / own)})"
            if result.problem is not None:
                problems.setdefault(f"{result.runtime}: {result.problem}", []).append(build.model)
        table.add_row(build.model, duration(own), *(cells.get(name, "") for name in names))
    notes = [Text.assemble((", ".join(models), "bold"), f": {problem}") for problem, models in problems.items()]
    words = "Ours takes integers where it is an integer model, ONNX files take floats and quantize them themselves."
    return Group(Text(), table, *notes, Text(words, style="dim"))
