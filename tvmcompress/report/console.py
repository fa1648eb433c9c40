"""Records as tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ..evaluation.accuracy import Evaluation
from ..evaluation.noise import LayerNoise
from ..measuring.record import BuildRecord
from ..targets.base import TargetDescription
from ..targets.measurement import Measurement
from .estimates import cycle_sentences
from .inspection import GroupRecord, Inspection
from .record import ModelRecord, Report
from .surgery import SurgeryRecord
from .tables import plain_grid, plain_table
from .units import count, duration, energy, energy_place, factor, percent, shape, size

_POOR_SNR = 10.0


def model_header(record: Inspection) -> RenderableType:
    """Inputs and totals of a model."""
    grid = plain_grid()
    inputs = ", ".join(
        f"{spec.name} {shape(spec.shape)} {spec.dtype}" + (f" {spec.layout}" if spec.layout else "") for spec in record.inputs
    )
    grid.add_row(record.name, inputs)
    grid.add_row("work", f"{count(record.macs)} multiply-accumulates an inference")
    grid.add_row("weights", f"{count(record.params)} parameters, {size(record.param_bytes)}")
    for line in record.provenance:
        grid.add_row("", Text(line, style="dim"))
    return grid


def layers_table(record: Inspection) -> RenderableType:
    """One row a layer."""
    table = plain_table()
    table.add_column("layer", max_width=36)
    table.add_column("operator", max_width=20)
    table.add_column("output", no_wrap=True)
    table.add_figures("MACs", "share", "parameters")
    for layer in record.layers:
        part = layer.macs / record.macs if record.macs else 0.0
        table.add_row(
            Text(layer.name),
            layer.op.removeprefix("nn.").removeprefix("tvmcompress."),
            shape(layer.output_shape),
            count(layer.macs) if layer.macs else "",
            Text(f"{_bar(part).strip()} {part * 100:4.1f} %" if layer.macs else "", style="cyan"),
            count(layer.params) if layer.params else "",
        )
    return table


def groups_table(record: Inspection) -> RenderableType:
    """One row a group of channels."""
    table = plain_table("Groups of channels")
    table.add_column("group", max_width=30)
    table.add_column("channels", justify="right")
    table.add_column("removed from, or why not")
    if not record.groups:
        return Text("No channels can be removed: the model is quantized already; prune the float model.")
    for group in record.groups:
        table.add_row(Text(group.name), str(group.size), _members(group))
    return table


def _members(group: GroupRecord) -> Text:
    if group.frozen:
        return Text(f"stays: {group.frozen}", style="yellow")
    names = list(dict.fromkeys(param.rpartition(":")[0] for param in group.params))
    shown = ", ".join(names[:4])
    return Text(shown + (f" and {len(names) - 4} more" if len(names) > 4 else ""))


def targets_table(rows: Sequence[tuple[TargetDescription, list[str]]]) -> RenderableType:
    """One row a target: what it is, how it is measured, what is missing."""
    table = plain_table()
    table.add_column("target", style="bold")
    table.add_column("what it is")
    table.add_column("measured", no_wrap=True)
    table.add_figures("flash", "RAM")
    table.add_column("tools", no_wrap=True)
    problems: dict[str, list[str]] = {}
    for description, missing in rows:
        table.add_row(
            description.name,
            description.title,
            "time" if description.source == "hardware" else "instructions",
            size(description.flash_bytes) if description.flash_bytes else "",
            size(description.ram_bytes) if description.ram_bytes else "",
            Text("missing", style="yellow") if missing else Text("ready", style="green"),
        )
        for sentence in missing:
            problems.setdefault(sentence, []).append(description.name)
    notes = [Text.assemble((", ".join(names), "bold"), f": {sentence}") for sentence, names in problems.items()]
    return Group(table, *notes)


def target_details(description: TargetDescription, details: Mapping[str, str], missing: Sequence[str]) -> RenderableType:
    """One target: what it is, and what builds for it use."""
    table = plain_table()
    table.add_column(description.name, no_wrap=True, style="bold")
    table.add_column(description.title)
    for heading, text in details.items():
        table.add_row(heading, text)
    return Group(table, *(Text(sentence, style="yellow") for sentence in missing))


def models_table(models: Sequence[ModelRecord], wide: bool = True) -> RenderableType:
    """One row a model: quality, work, size; if `wide` with how much less than the first model's they are."""
    table = plain_table()
    table.add_column("model", style="bold")
    table.add_figures(*_quality_headings(models), "parameters", "MACs", "weights")
    first = models[0]
    for record in models:
        table.add_row(
            record.name,
            *_quality(record.evaluation, models),
            count(record.params) + (_less(first.params, record.params) if wide else ""),
            count(record.macs) + (_less(first.macs, record.macs) if wide else ""),
            size(record.weight_bytes) + (_less(first.weight_bytes, record.weight_bytes) if wide else ""),
        )
    return Group(table, *_doubts(models))


def report_tables(report: Report, wide: bool) -> RenderableType:
    """Models on targets: in one table where it fits, else in two."""
    if wide:
        return builds_table(report, with_models=True)
    return Group(models_table(report.models, wide=False), Text(), builds_table(report, with_models=False))


def builds_table(report: Report, *, with_models: bool) -> RenderableType:
    """One row for each model on each target, if asked with the model's figures in front; gains are over the first."""
    table = plain_table()
    scored = any(record.evaluation is not None and record.evaluation.accuracy is not None for record in report.models)
    compared = len({build.model for build in report.builds}) > 1
    table.add_column("model", style="bold")
    if with_models:
        table.add_figures(*(("accuracy",) if scored else ()), "params", "MACs", "weights")
    table.add_column("target")
    table.add_figures("an inference")
    if compared:
        table.add_figures("gain")
    table.add_figures("flash", "RAM")
    reference = {build.target: build.measurement for build in report.builds if build.model == report.models[0].name}
    for record in report.models:
        builds = [build for build in report.builds if build.model == record.name]
        own = [record.name, *(_own_cells(record, scored) if with_models else [])]
        for index, build in enumerate(builds):
            cells = _build_cells(build, reference.get(build.target))
            shown = cells if compared else [*cells[:2], *cells[3:]]
            last = index == len(builds) - 1 and len(report.targets) > 1
            table.add_row(*(own if index == 0 else [""] * len(own)), *shown, end_section=last)
    doubts = _doubts(report.models) if with_models else []
    return Group(table, *doubts, *_problems(report.builds), *_sources(report))


def _doubts(models: Sequence[ModelRecord]) -> list[Text]:
    """What may be wrong with the data that the first model was evaluated on."""
    return _doubt(models[0].evaluation)


def _doubt(evaluation: Evaluation | None) -> list[Text]:
    found = None if evaluation is None else evaluation.doubt
    return [] if found is None else [Text(found[0].upper() + found[1:] + ".", style="yellow")]


def _own_cells(record: ModelRecord, scored: bool) -> list[str]:
    accuracy = [_accuracy(record.evaluation)] if scored else []
    return [*accuracy, count(record.params), count(record.macs), size(record.weight_bytes)]


def _sources(report: Report) -> list[Text]:
    """Where the figures are from, as far as there are any."""
    measured = [build for build in report.builds if build.measurement is not None]
    if not measured:
        return []
    places: dict[str, list[str]] = {}
    for build in measured:
        latency = build.measurement.latency if build.measurement is not None else None
        if build.measurement is not None and build.measurement.place is not None and latency is not None:
            spread = f"{duration(latency.p10_ms)} to {duration(latency.p90_ms)} in 8 of 10 of {latency.runs} runs"
            places.setdefault(build.measurement.place, []).append(f"{build.model} on {build.target} {spread}")
    timed = "" if not places else ", or on the board named here"
    boards = [Text(f"{'; '.join(builds)}: {place}.", style="dim") for place, builds in places.items()]
    energies = [
        Text(f"{build.model} on {build.target}: {energy(found.millijoules)} an inference ({energy_place(found)}).", style="dim")
        for build in measured
        if build.measurement is not None and (found := build.measurement.energy) is not None
    ]
    compared = "Every build" if len(measured) == len(report.builds) else "Every build with figures"
    return [
        Text(
            f"us, ms: median time on this machine{timed}.  instr: instructions executed under an emulator; exact, not a time.\n"
            f"{compared} was run and compared with its model first; integer builds are equal byte for byte.",
            style="dim",
        ),
        *boards,
        *energies,
        *(Text(f"{sentence}.", style="dim") for sentence in cycle_sentences(measured)),
    ]


def _build_cells(build: BuildRecord, reference: Measurement | None) -> list[RenderableType]:
    measured = build.measurement
    if measured is None:
        return [build.target, Text("none, see below", style="yellow"), "", "", ""]
    return [
        build.target,
        Text(_speed(measured), style="bold cyan"),
        _gain(measured, reference),
        size(measured.flash_bytes) if measured.flash_bytes is not None else "",
        size(measured.ram_bytes) if measured.ram_bytes is not None else "",
    ]


def _problems(builds: Sequence[BuildRecord]) -> list[Text]:
    found: dict[str, list[str]] = {}
    for build in builds:
        for sentence in (*((build.problem,) if build.problem is not None else ()), *build.notes):
            found.setdefault(sentence, []).append(f"{build.model} on {build.target}")
    return [Text.assemble((", ".join(names), "bold"), f": {problem}") for problem, names in found.items()]


def _speed(measured: Measurement) -> str:
    if measured.latency is not None:
        return duration(measured.latency.median_ms)
    if measured.instructions is not None:
        return f"{count(measured.instructions)} instr"
    return ""


def _gain(measured: Measurement, reference: Measurement | None) -> str:
    if reference is None:
        return ""
    if measured.latency is not None and reference.latency is not None:
        return factor(reference.latency.median_ms / measured.latency.median_ms)
    if measured.instructions and reference.instructions:
        return factor(reference.instructions / measured.instructions)
    return ""


def evaluation_table(name: str, evaluation: Evaluation) -> RenderableType:
    """The quality of one model, a row a figure."""
    grid = plain_grid()
    grid.add_row(name, f"{evaluation.samples:,} samples")
    if evaluation.accuracy is not None and evaluation.half_width is not None:
        accuracy = f"{percent(evaluation.accuracy)} ± {percent(evaluation.half_width, 1)}  ({evaluation.correct:,} right)"
        grid.add_row("accuracy", Text(accuracy, style="bold cyan"))
    if evaluation.reference_accuracy is not None:
        grid.add_row("of the original", percent(evaluation.reference_accuracy))
    if evaluation.agreement is not None:
        grid.add_row("agreement", f"{percent(evaluation.agreement)} have the original's highest output")
    if evaluation.relative_error is not None:
        grid.add_row("output error", f"{percent(evaluation.relative_error)} of the original's output")
    if evaluation.reconstruction_error is not None:
        grid.add_row("reconstruction", f"mean squared error {evaluation.reconstruction_error:.5g}")
    if evaluation.reference_reconstruction_error is not None:
        change = evaluation.reconstruction_change or 0.0
        grid.add_row("of the original", f"{evaluation.reference_reconstruction_error:.5g} ({change * 100:+.2f} %)")
    return Group(grid, *_doubt(evaluation))


def noise_table(layers: Sequence[LayerNoise]) -> RenderableType:
    """Signal-to-noise ratio, a row a layer."""
    table = plain_table("Noise at each layer against the original")
    table.add_column("layer", max_width=40)
    table.add_column("operator")
    table.add_figures("channels", "SNR")
    table.add_column("", no_wrap=True)
    for layer in layers:
        exact = layer.snr_db == float("inf")
        part = 1.0 if exact else min(max(layer.snr_db / 50, 0.0), 1.0)
        poor = layer.snr_db < _POOR_SNR
        channels = f"{layer.channels}" if layer.channels == layer.of_channels else f"{layer.channels} of {layer.of_channels}"
        shown = "exact" if exact else f"{layer.snr_db:.1f} dB"
        style = "yellow" if poor else "cyan"
        table.add_row(Text(layer.name), layer.op, channels, Text(shown, style=style), Text(_bar(part, 16), style=style))
    return table


def steps_table(report: Report) -> RenderableType:
    """What was done, with times."""
    grid = plain_grid()
    grid.add_column(justify="right", style="dim")
    for step in report.steps:
        grid.add_row(step.name, step.message, f"{step.seconds:.2f} s")
    return grid


def surgery_table(record: SurgeryRecord) -> RenderableType:
    """One row a group."""
    table = plain_table("What was removed")
    table.add_column("group", max_width=30)
    table.add_column("channels", justify="right")
    table.add_column("MACs less", justify="right")
    table.add_column("parameters less", justify="right")
    table.add_column("why", max_width=40)
    for block in record.blocks:
        table.add_row(block, "the whole block", "", "", "changes the output least")
    for group in record.groups:
        saved = ["" if value is None else count(value) for value in (group.macs, group.params)]
        table.add_row(group.name, f"{group.before} to {group.after}", *saved, group.reason)
    return table


def remarks_list(report: Report) -> RenderableType:
    """What the passes had to say."""
    return Group(
        *(Text.assemble((f"{r.subject}", "bold"), f": {r.message} ", (f"({r.pass_name})", "dim")) for r in report.remarks)
    )


def _quality_headings(models: Sequence[ModelRecord]) -> list[str]:
    found = [record.evaluation for record in models if record.evaluation is not None]
    headings = []
    if any(evaluation.accuracy is not None for evaluation in found):
        headings.append("accuracy")
    if any(evaluation.agreement is not None for evaluation in found):
        headings.append("agreement")
    if any(evaluation.reconstruction_error is not None for evaluation in found):
        headings.append("reconstruction")
    elif any(evaluation.relative_error is not None for evaluation in found) and "accuracy" not in headings:
        headings.append("output error")
    return headings


def _quality(evaluation: Evaluation | None, models: Sequence[ModelRecord]) -> list[str]:
    cells = []
    for heading in _quality_headings(models):
        if evaluation is None:
            cells.append("")
        elif heading == "accuracy":
            cells.append(_accuracy(evaluation))
        elif heading == "agreement":
            cells.append(percent(evaluation.agreement, 1) if evaluation.agreement is not None else "")
        elif heading == "reconstruction":
            error = evaluation.reconstruction_error
            cells.append(f"{error:.5g}" if error is not None else "")
        else:
            cells.append(percent(evaluation.relative_error) if evaluation.relative_error is not None else "")
    return cells


def _accuracy(evaluation: Evaluation | None) -> str:
    return percent(evaluation.accuracy) if evaluation is not None and evaluation.accuracy is not None else ""


def _less(first: int, own: int) -> str:
    return f" ({factor(first / own)} less)" if own and first / own > 1.05 else ""


def _bar(part: float, width: int = 10) -> str:
    full = round(part * width)
    return "━" * full + " " * (width - full)
