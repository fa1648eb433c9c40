"""What came of running a built model, for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ..measuring.running import RunRecord
from ..targets.measurement import Measurement
from .memory import flash_parts, ram_parts
from .tables import plain_grid, plain_table
from .units import count, duration, energy, energy_place, percent

_SHOWN = 8
"""Samples whose highest output is listed."""


def run_summary(record: RunRecord) -> RenderableType:
    """Outputs, accuracy and the figures of one inference."""
    grid = plain_grid()
    grid.add_row(record.target, "one random sample" if record.random else f"{record.samples:,} samples")
    evaluation, measured = record.evaluation, record.measurement
    if evaluation is not None and evaluation.accuracy is not None and evaluation.half_width is not None:
        accuracy = f"{percent(evaluation.accuracy)} ± {percent(evaluation.half_width, 1)}  ({evaluation.correct:,} right)"
        grid.add_row("accuracy", Text(accuracy, style="bold cyan"))
    if measured.latency is not None:
        latency = measured.latency
        times = f"{duration(latency.p10_ms)} to {duration(latency.p90_ms)}, {latency.runs} runs"
        grid.add_row("an inference", Text.assemble((duration(latency.median_ms), "bold cyan"), f" ({times})"))
    if measured.energy is not None:
        grid.add_row("its energy", f"{energy(measured.energy.millijoules)} ({energy_place(measured.energy)})")
    if measured.instructions is not None:
        grid.add_row("an inference", Text(f"{measured.instructions:,} instructions", style="bold cyan"))
    if measured.classes:
        grid.add_row("of these", Text(", ".join(f"{value:,} {name}" for name, value in measured.classes.items() if value)))
    if measured.cycle_estimate is not None:
        grid.add_row("estimated", Text(f"{measured.cycle_estimate.cycles:,} cycles"))
    for name, value in (("flash", flash_parts(measured)), ("RAM", ram_parts(measured))):
        if value:
            grid.add_row(name, value)
    if measured.place is not None:
        grid.add_row("measured on", Text(measured.place))
    notes = [Text(note, style="dim") for note in measured.notes]
    return Group(*([predictions_table(record), Text()] if record.predictions else []), grid, *notes)


def predictions_table(record: RunRecord) -> RenderableType:
    """The highest output of the first samples."""
    table = plain_table()
    labelled = any(prediction.expected is not None for prediction in record.predictions)
    for heading in ("sample", "class", "score", *(("label",) if labelled else ())):
        table.add_column(heading, justify="right")
    for index, prediction in enumerate(record.predictions[:_SHOWN]):
        style = "" if prediction.expected in (None, prediction.label) else "yellow"
        label = [str(prediction.expected)] if labelled else []
        table.add_row(str(index), str(prediction.label), f"{prediction.score:.4g}", *label, style=style)
    more = len(record.predictions) - _SHOWN
    return Group(table, *([Text(f"and {more:,} more; --json lists them all", style="dim")] if more > 0 else []))


def instructions_tables(measured: Measurement) -> RenderableType:
    """Executed instructions by layer, in the model's order, and by function, most first."""
    tables: list[RenderableType] = []
    total = measured.instructions or 1
    for heading, rows in (("layer", measured.layers), ("function", measured.functions)):
        if not rows:
            continue
        table = plain_table()
        table.add_column(heading, max_width=44)
        table.add_figures("instructions", "share")
        for name, value in rows.items():
            table.add_row(Text(name), count(value), f"{100 * value / total:.1f} %")
        tables += [*([Text()] if tables else []), table]
    return Group(*tables)
