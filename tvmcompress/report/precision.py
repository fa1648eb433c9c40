"""What a search for precisions tried, as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from ..evaluation.output_comparison import OutputQuality
from ..search.precision_choice import PrecisionChoice
from .tables import FoldedTable, plain_table
from .units import percent, size


def precision_table(choice: PrecisionChoice) -> RenderableType:
    """One row a version tried in full: layers and share of the MACs by precision, quality, size; the chosen one is marked."""
    table = plain_table("Precisions tried")
    table.add_column("layers (share of the MACs)")
    add_quality_columns(table, choice.original)
    table.add_figures("weights")
    table.add_column("", no_wrap=True)
    for trial in choice.steps:
        macs = choice.macs_in(trial)
        layers = ", ".join(f"{count} {kind} ({macs[kind]:.0%})" for kind, count in choice.layers_in(trial).items())
        chosen = trial is choice.steps[-1]
        row = (layers, *quality_cells(trial.quality), size(trial.weight_bytes), "chosen" if chosen else "")
        table.add_row(*row, style="bold cyan" if chosen else None)
    words = f"Limit: {choice.limit}; measured on {choice.samples} samples"
    if choice.original.accuracy is not None:
        words += f", of which the original gets {percent(choice.original.accuracy, 2)} right"
    return Group(table, Text(f"{words}.", style="dim"))


def add_quality_columns(table: FoldedTable, original: OutputQuality) -> None:
    """Columns for `quality_cells`, as far as the original can be told right or wrong."""
    if original.accuracy is not None:
        table.add_figures("accuracy")
    if original.agreement is not None:
        table.add_figures("agreement")
    table.add_figures("SNR, dB")


def quality_cells(quality: OutputQuality) -> list[str]:
    """Accuracy, agreement and signal-to-noise ratio."""
    shares = [percent(share, 2) for share in (quality.accuracy, quality.agreement) if share is not None]
    return [*shares, f"{quality.snr:.1f}"]
