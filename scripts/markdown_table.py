"""Print the table of one or more report.json files as Markdown, for the README.

Usage: python scripts/markdown_table.py demo-out/report.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from tvmcompress.report.record import BuildRecord, Report
from tvmcompress.report.units import count, duration, percent, size


def speed(build: BuildRecord) -> str:
    """Time or executed instructions, with flash and RAM."""
    measured = build.measurement
    if measured is None:
        return "not built"
    figure = f"{count(measured.instructions or 0)} instr"
    if measured.latency is not None:
        figure = duration(measured.latency.median_ms)
    return f"{figure}<br>{size(measured.flash_bytes or 0)} / {size(measured.ram_bytes or 0)}"


def main() -> None:
    """One row a model, one column a target."""
    reports = [Report.model_validate_json(Path(name).read_text()) for name in sys.argv[1:]]
    targets = reports[0].targets
    print("| model | accuracy | parameters | MACs | weights | " + " | ".join(targets) + " |")
    print("|---|---|---|---|---|" + "---|" * len(targets))
    for report in reports:
        for model in report.models:
            name = model.name if len(reports) == 1 else f"{report.source.removesuffix('.onnx')}, {model.name}"
            accuracy = model.evaluation.accuracy if model.evaluation is not None else None
            builds = {build.target: build for build in report.builds if build.model == model.name}
            cells = [
                name,
                percent(accuracy) if accuracy is not None else "",
                count(model.params),
                count(model.macs),
                size(model.weight_bytes),
                *(speed(builds[target]) for target in targets),
            ]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
