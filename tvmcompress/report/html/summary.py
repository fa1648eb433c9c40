"""What stands first: what was gained, where, at what accuracy, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from ...evaluation.accuracy import Evaluation
from ...measuring.record import BuildRecord
from ...targets.measurement import Measurement
from ..record import ModelRecord, Report
from ..units import count, duration, energy, energy_place, factor, percent, size

_TRAINING = ("fine-tune", "train quantized")
"""Steps that train, as reports name them."""


@dataclass(frozen=True)
class Tile:
    """One figure of the first screen.

    Attributes:
        heading: What it is.
        value: The figure.
        note: What it is compared with.
        kind: "gain", "cost", or "" for what is neither.
    """

    heading: str
    value: str
    note: str = ""
    kind: str = ""


def quality(evaluation: Evaluation | None) -> tuple[str, str, float] | None:
    """The figure by which a model is judged: its name, as text, and as a number of which more is better."""
    if evaluation is None:
        return None
    if evaluation.accuracy is not None:
        return "accuracy", percent(evaluation.accuracy), 100 * evaluation.accuracy
    if evaluation.agreement is not None:
        return "agreement", percent(evaluation.agreement), 100 * evaluation.agreement
    if evaluation.reconstruction_error is not None:
        error = evaluation.reconstruction_error
        return "reconstruction", f"error {error:.4g}", -error
    if evaluation.relative_error is not None:
        return "output", f"{percent(evaluation.relative_error)} error", -100 * evaluation.relative_error
    return None


def speed(measured: Measurement) -> tuple[str, float, str] | None:
    """An inference: as text, as a number of which less is better, and what it counts."""
    if measured.latency is not None:
        return duration(measured.latency.median_ms), measured.latency.median_ms, "time"
    if measured.instructions is not None:
        return f"{count(measured.instructions)} instr", float(measured.instructions), "instructions"
    return None


def tiles(report: Report) -> list[Tile]:
    """The figures of the first screen."""
    first, last = report.models[0], report.models[-1]
    alone = first is last
    found = []
    own = quality(last.evaluation)
    if own is not None:
        found.append(Tile(own[0], own[1], "" if alone else _against(first, last), _kind(first, last)))
    if alone:
        found.append(Tile("MACs of an inference", count(last.macs)))
        found.append(Tile("weights", size(last.weight_bytes), f"{count(last.params)} parameters"))
    else:
        found.append(_fewer("MACs of an inference", first.macs, last.macs, count))
        found.append(_fewer("weights", first.weight_bytes, last.weight_bytes, size))
    before = {build.target: build.measurement for build in report.builds if build.model == first.name and not alone}
    for build in report.builds:
        if build.model == last.name and build.measurement is not None:
            found += _on_target(build.target, build.measurement, before.get(build.target))
    seconds = sum(step.seconds for step in report.steps)
    if seconds >= 0.05:
        trained = any(step.name in _TRAINING for step in report.steps)
        note = "with training" if trained else "nothing trained"
        found.append(Tile("compressing took", duration(1e3 * seconds), note, "cost"))
    return found


def _against(first: ModelRecord, last: ModelRecord) -> str:
    before, after = quality(first.evaluation), quality(last.evaluation)
    if before is None or after is None or first is last:
        return ""
    if last.evaluation is not None and last.evaluation.accuracy is not None:
        change = after[2] - before[2]
        return f"{change:+.2f} points, the original has {before[1]}" if change else "as the original"
    return "with the original's answers" if after[0] == "agreement" else f"the original's: {before[1]}"


def _kind(first: ModelRecord, last: ModelRecord) -> str:
    before, after = quality(first.evaluation), quality(last.evaluation)
    if before is None or after is None or first is last:
        return ""
    return "gain" if after[2] >= before[2] - 1e-9 else "cost"


def _fewer(heading: str, before: float, after: float, words: object) -> Tile:
    assert callable(words)
    if not after or not before:
        return Tile(heading, words(after))
    value = words(after)
    if before == after:
        return Tile(heading, value, "as the original")
    gain = before / after
    note = f"{factor(gain)} less than {words(before)}" if gain > 1 else f"more than {words(before)}"
    return Tile(heading, value, note, "gain" if gain > 1 else "cost")


def _on_target(name: str, measured: Measurement, before: Measurement | None) -> list[Tile]:
    found = []
    own, other = speed(measured), None if before is None else speed(before)
    if own is not None:
        note, kind = "an inference", ""
        if other is not None and other[2] == own[2] and own[1]:
            gain = other[1] / own[1]
            note, kind = f"{factor(gain)} less than {other[0]}", "gain" if gain > 1 else "cost"
        found.append(Tile(f"{name}, {own[2]}", own[0], note, kind))
    if measured.energy is not None:
        found.append(Tile(f"{name}, energy", energy(measured.energy.millijoules), energy_place(measured.energy)))
    if measured.flash_bytes is not None and measured.ram_bytes is not None:
        note = "" if before is None or before.flash_bytes is None or before.ram_bytes is None else (
            f"before: {size(before.flash_bytes)} / {size(before.ram_bytes)}"
        )
        found.append(Tile(f"{name}, flash / RAM", f"{size(measured.flash_bytes)} / {size(measured.ram_bytes)}", note))
    return found


@dataclass(frozen=True)
class Cell:
    """One cell of the table of models.

    Attributes:
        heading: Of its column.
        value: The figure.
        note: What stands below.
        problem: Whether that is why there is no figure.
    """

    heading: str
    value: str
    note: str = ""
    problem: bool = False


def rows(report: Report) -> list[list[Cell]]:
    """One row a model: what it is worth, and what was measured of it on each target."""
    reference = {build.target: build.measurement for build in report.builds if build.model == report.models[0].name}
    builds = {(build.model, build.target): build for build in report.builds}
    judged = next((own[0] for model in report.models if (own := quality(model.evaluation)) is not None), None)
    found: list[list[Cell]] = []
    for model in report.models:
        own = quality(model.evaluation)
        cells = [Cell("model", model.name)]
        if judged is not None:
            cells.append(Cell(judged, "" if own is None else own[1]))
        cells += [Cell("MACs", count(model.macs)), Cell("weights", size(model.weight_bytes))]
        for target in report.targets:
            build = builds.get((model.name, target))
            cells.append(Cell(target, "") if build is None else _build_cell(build, reference.get(target)))
        found.append(cells)
    return found


def _build_cell(build: BuildRecord, before: Measurement | None) -> Cell:
    measured = build.measurement
    if measured is None:
        return Cell(build.target, "none", build.problem or "", problem=True)
    own, other = speed(measured), None if before is None else speed(before)
    value = "" if own is None else own[0]
    if own is not None and other is not None and own[1] and before is not measured:
        value += f" ({factor(other[1] / own[1])})"
    memory = [
        f"{heading} {size(amount)}"
        for heading, amount in (("flash", measured.flash_bytes), ("RAM", measured.ram_bytes))
        if amount is not None
    ]
    return Cell(build.target, value, ", ".join(memory))


def runtime_rows(report: Report) -> list[list[Cell]]:
    """One row a build that was timed in turns with other runtimes; empty where none was."""
    found = []
    for build in report.builds:
        own = None if build.measurement is None else build.measurement.latency
        if not build.runtimes or own is None:
            continue
        cells = [Cell("model", build.model), Cell("ours", duration(own.median_ms))]
        for result in build.runtimes:
            if result.latency is None:
                cells.append(Cell(result.runtime, "none", result.problem or "", problem=True))
            else:
                times = factor(result.latency.median_ms / own.median_ms)
                words = f"{duration(result.latency.median_ms)} ({times})"
                cells.append(Cell(result.runtime, words, f"version {result.version}"))
        found.append(cells)
    return found
