"""The page: what each section shows, and the template that puts it together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...files.whole_file import whole_file
from ...measuring.record import BuildRecord
from ...recipe.quantize import QuantizeRecipe
from ..estimates import cycle_sentences
from ..layers import LayerFigures
from ..record import Report
from ..tuning import tuning_sentences
from ..units import count, duration, percent, size
from .arena import arena_map, fullest_step
from .bars import Bars, bytes_bars, instruction_bars, macs_bars, noise_bars
from .charts import Line, Point, lines, scatter
from .summary import quality, rows, runtime_rows, speed, tiles

_UNIT = re.compile(r"(?<=\d) (?=(?:[KMG]?B|[kMG]|[num]?s|dB|instr)\b|%)|(?<=[kMG]) (?=instr\b)")
"""Between a number and its unit, where no line is to break."""

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["unbroken"] = lambda words: _UNIT.sub("\N{NO-BREAK SPACE}", words)


@dataclass(frozen=True)
class Chart:
    """A picture with what is said of it.

    Attributes:
        title: What it shows.
        picture: The SVG.
        note: What to know of it.
        legend: Colors and names.
        more: What is said of it on demand.
    """

    title: str
    picture: Markup
    note: str = ""
    legend: Sequence[tuple[str, str]] = ()
    more: str = ""


def html_page(report: Report) -> str:
    """A report as one page of HTML, which needs nothing besides."""
    first, last = report.models[0], report.models[-1]
    own = [build for build in report.builds if build.model == last.name]
    return _TEMPLATES.get_template("report.html.j2").render(
        report=report,
        title=report.source,
        result=last.name if last is not first else "",
        verdict=report.verdict,
        doubt=None if first.evaluation is None else first.evaluation.doubt,
        samples=None if last.evaluation is None else last.evaluation.samples,
        tiles=tiles(report),
        rows=rows(report),
        estimates=cycle_sentences(report.builds),
        runtimes=runtime_rows(report),
        fronts=_fronts(report),
        bars=_bars(report, own),
        arenas=[chart for build in own if (chart := _arena(build)) is not None],
        surgery=report.surgery,
        precisions=_precisions(report),
        fallen_back=_in_float(report),
        sensitivity=_sensitivity(report),
        tuned=_tuned(own),
        recipe="" if report.recipe is None else report.recipe.to_toml(),
        count=count,
        size=size,
        percent=percent,
    )


def save_html(report: Report, path: Path) -> None:
    """Write the page.

    Raises:
        UserError: The file cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(html_page(report), encoding="utf-8")


def _fronts(report: Report) -> list[Chart]:
    """Quality against each cost, where there are models to compare."""
    judged = {model.name: found for model in report.models if (found := quality(model.evaluation)) is not None}
    if len(judged) < 2:
        return []
    what = next(iter(judged.values()))[0]
    y_words = {"accuracy": "accuracy, %", "agreement": "answers as the original's, %"}.get(what, f"{what} error (negative)")
    last = report.models[-1].name
    charts = []

    def chart(title: str, x_words: str, costs: dict[str, float], words: Any) -> None:
        points = [Point(cost, judged[name][2], name, name == last) for name, cost in costs.items() if name in judged]
        if len(points) > 1:
            picture = scatter(points, title, x_words, y_words, words, lambda value: f"{value:.4g}")
            charts.append(Chart(title, picture))

    for target in report.targets:
        costs: dict[str, float] = {}
        unit = ""
        for build in report.builds:
            if build.target == target and build.measurement is not None and (own := speed(build.measurement)) is not None:
                costs[build.model], unit = own[1], own[2]
        timed = unit == "time"
        words = "time of an inference" if timed else "instructions of an inference"
        chart(f"{what.capitalize()} against {unit} on {target}", words, costs, _time if timed else count)
    weights = {model.name: float(model.weight_bytes) for model in report.models}
    chart(f"{what.capitalize()} against weights", "weights", weights, size)
    if not report.targets:
        macs = {model.name: float(model.macs) for model in report.models}
        chart(f"{what.capitalize()} against work", "multiply-accumulates", macs, count)
    return charts


def _time(milliseconds: float) -> str:
    return duration(milliseconds) if milliseconds else "0"


def _bars(report: Report, own: Sequence[BuildRecord]) -> list[Bars]:
    last = report.models[-1]
    counted = [instruction_bars(build) for build in own]
    found = [macs_bars(last.figures), *counted, noise_bars(last.layers), bytes_bars(last.figures)]
    return [bars for bars in found if bars is not None]


def _arena(build: BuildRecord) -> Chart | None:
    measured = build.measurement
    if measured is None or measured.memory is None or not measured.memory.steps or not measured.arena_bytes:
        return None
    step, layer = fullest_step(measured.memory)
    least = measured.arena_lower_bound or 0
    tight = least >= measured.arena_bytes
    bound = "No plan is smaller." if tight else f"No plan is smaller than the dashed line, {size(least)}."
    note = f"{size(measured.arena_bytes)}, fullest at step {step}, {layer}. {bound} Gray is room that kernels work in."
    steps = "; ".join(f"{number} {name}" for number, name in enumerate(measured.memory.steps, start=1))
    return Chart(f"Arena on {build.target}", arena_map(measured.memory, measured.arena_bytes, least), note, more=steps)


def _precisions(report: Report) -> list[tuple[str, int, float, float]]:
    """Precision, layers, and shares of the multiply-accumulates and of the bytes, of the last model."""
    figures = report.models[-1].figures
    macs, weight = max(sum(f.macs for f in figures), 1), max(sum(f.param_bytes for f in figures), 1)
    return [
        (
            kind,
            sum(f.precision == kind for f in figures),
            sum(f.macs for f in figures if f.precision == kind) / macs,
            sum(f.param_bytes for f in figures if f.precision == kind) / weight,
        )
        for kind in dict.fromkeys(f.precision for f in figures)
    ]


def _in_float(report: Report) -> list[tuple[LayerFigures, str]]:
    """Layers that stay in float beside others that do not, with the reason."""
    figures = report.models[-1].figures
    if all(layer.precision == "float32" for layer in figures):
        return []
    entries = () if report.recipe is None else report.recipe.entries()
    asked = [table for _, table in entries if isinstance(table, QuantizeRecipe)]
    found = []
    for layer in figures:
        if layer.precision == "float32":
            wanted = any(table.precision_of(layer.name) == "float32" for table in asked)
            reason = "kept in float, as the recipe says" if wanted else layer.why_float or "no reason was recorded"
            found.append((layer, reason))
    return found


def _sensitivity(report: Report) -> Chart | None:
    found = report.sensitivity
    if found is None:
        return None
    series = []
    for group in found.groups:
        points = [point for point in group.points if point.removed]
        if found.accuracy is not None:
            start = [(0.0, 100 * found.accuracy)]
            values = [*start, *((100 * p.removed / group.size, 100 * (p.accuracy or 0.0)) for p in points)]
        else:
            values = [(100 * p.removed / group.size, p.snr) for p in points]
        if len(values) > 1:
            series.append(Line(f"{group.name} ({group.size})", values))
    if not series:
        return None
    y_words = "accuracy, %" if found.accuracy is not None else "output, dB"
    plain = "{:.4g}".format
    picture, legend = lines(series, "Each group pruned alone", "channels of the group removed, %", y_words, plain, plain)
    return Chart("Sensitivity", picture, f"Each group pruned alone by {found.importance}, {found.samples} samples.", legend)


def _tuned(own: Sequence[BuildRecord]) -> list[tuple[str, Bars, list[str]]]:
    """What tuning found on each target: gains of functions, and sentences."""
    from .bars import Bar

    found = []
    for build in own:
        if build.tuning is None:
            continue
        known = [task for task in build.tuning.tasks if task.default_cost and task.best_cost]
        gains = [1 - (task.best_cost or 0) / (task.default_cost or 1) for task in known]
        most = max([*gains, 0.01])
        bars = tuple(Bar(task.name, max(gain, 0) / most, f"{100 * gain:.1f} %") for task, gain in zip(known, gains))
        note = "How much less a function costs with what was found."
        # Where the log is concerns nobody who reads this elsewhere.
        sentences = [line for line in tuning_sentences(build.tuning) if build.tuning.directory not in line]
        found.append((build.target, Bars(f"Tuning on {build.target}", note, bars), sentences))
    return found
