"""The sensitivity of layers to quantization as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ..evaluation.output_comparison import OutputQuality
from ..search.quantization_sensitivity import QuantizationSensitivity
from .plots import label, new_figure, save_figure
from .tables import plain_table
from .units import percent


def quantization_sensitivity_table(found: QuantizationSensitivity) -> RenderableType:
    """One row a layer: quantized alone, and left out; the most sensitive layer is marked."""
    total = max(sum(layer.macs for layer in found.layers), 1)
    scored = found.original.accuracy is not None
    answers = scored or found.original.agreement is not None
    table = plain_table(f"Sensitivity to {found.precision}")
    table.add_column("layer", max_width=34)
    table.add_column("operator", max_width=14)
    table.add_figures("MACs")
    for heading in ("alone: SNR, dB", "without it: SNR, dB"):
        table.add_column(heading, justify="right")
        if answers:
            table.add_figures("accuracy" if scored else "agreement")
    worst = found.most_sensitive()[:1]
    for layer in found.layers:
        table.add_row(
            Text(layer.name),
            layer.op.removeprefix("nn."),
            percent(layer.macs / total, 1) if layer.macs else "",
            *_cells(layer.alone, answers),
            *_cells(layer.without, answers),
            style="yellow" if layer in worst else None,
        )
    words = f"All layers in {found.precision}: {found.whole.snr:.1f} dB"
    if answers:
        words += f", {_share(found.whole)}" + (f" (in float {_share(found.original)})" if scored else "")
    return Group(table, Text(f"{words}; {found.samples} samples.", style="dim"))


def plot_quantization_sensitivity(found: QuantizationSensitivity, path: Path) -> None:
    """Draw the noise that each layer makes alone, and what is left without it, into a PNG file.

    Raises:
        MissingToolError: matplotlib is not installed.
    """
    count = len(found.layers)
    figure, axes = new_figure(9, 1.5 + 0.24 * count)
    places = range(count)
    # A layer of no noise at all has no finite ratio.
    highest = max([snr for layer in found.layers if (snr := layer.alone.snr) < float("inf")], default=100.0)
    axes.barh(places, [min(layer.alone.snr, highest) for layer in found.layers], height=0.65, color="C0", label="alone")
    axes.plot([min(layer.without.snr, highest) for layer in found.layers], places, "o", color="C1", label="all others, not it")
    axes.axvline(found.whole.snr, color="C3", linestyle="--", label="all layers")
    axes.set_yticks(places, [label(layer.name) for layer in found.layers], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("signal-to-noise ratio of the output, dB")
    axes.set_title(f"Quantized to {found.precision}, {found.samples} samples")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save_figure(figure, path)


def _cells(quality: OutputQuality, answers: bool) -> list[str]:
    return [f"{quality.snr:.1f}", *([_share(quality)] if answers else [])]


def _share(quality: OutputQuality) -> str:
    share = quality.accuracy if quality.accuracy is not None else quality.agreement
    return percent(share or 0.0, 2)
