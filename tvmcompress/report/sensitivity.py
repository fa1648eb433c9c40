"""A sensitivity analysis as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from ..sensitivity.channels import GroupSensitivity, Sensitivity, SensitivityPoint
from .plots import label, new_figure, save_figure
from .tables import plain_table
from .units import percent


def sensitivity_table(found: Sensitivity) -> Table:
    """One row a group, one column a ratio: accuracy where there are labels, else the output's signal-to-noise ratio."""
    unit = "accuracy" if found.accuracy is not None else "SNR of the output, dB"
    table = plain_table(f"Each group pruned alone: {unit}")
    table.add_column("group", max_width=30)
    table.add_column("channels", justify="right")
    for ratio in found.ratios:
        table.add_column(f"-{ratio:.0%}", justify="right")
    for group in found.groups:
        by_ratio = {point.ratio: point for point in group.points}
        cells = [_cell(by_ratio.get(ratio)) for ratio in found.ratios]
        table.add_row(group.name, str(group.size), *cells)
    return table


def plot_sensitivity(found: Sensitivity, path: Path) -> None:
    """Draw one curve a group into a PNG file.

    Raises:
        MissingToolError: matplotlib is not installed.
    """
    figure, axes = new_figure(9, 5.5)
    scored = found.accuracy is not None
    styles = ("-", "--", ":", "-.")
    for index, group in enumerate(found.groups):
        fractions, values = _curve(found, group)
        words = f"{label(group.name)} ({group.size})"
        axes.plot(fractions, values, styles[index // 10 % 4], marker="o", markersize=3, color=f"C{index % 10}", label=words)
    axes.set_xlabel("channels of the group removed, %")
    axes.set_ylabel("accuracy, %" if scored else "signal-to-noise ratio of the output, dB")
    axes.set_title(f"Each group pruned alone by {found.importance}, {found.samples} samples")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=1 + (len(found.groups) - 1) // 24, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save_figure(figure, path)


def _curve(found: Sensitivity, group: GroupSensitivity) -> tuple[list[float], list[float]]:
    points = [point for point in group.points if point.removed]
    fractions = [100 * point.removed / group.size for point in points]
    if found.accuracy is None:
        return fractions, [point.snr for point in points]
    values = [100 * (point.accuracy or 0.0) for point in points]
    return [0.0, *fractions], [100 * found.accuracy, *values]


def _cell(point: SensitivityPoint | None) -> str:
    if point is None:
        return ""
    if point.accuracy is not None:
        return percent(point.accuracy, 1)
    return f"{point.snr:.1f}" if point.removed else "-"
