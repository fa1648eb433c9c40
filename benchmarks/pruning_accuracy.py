"""Accuracy against multiply-accumulates, for each criterion, with and without repair.

Usage: python benchmarks/pruning_accuracy.py [--models kws,ic,...] [--criteria l2,output_energy,...] [--no-repair]
           [--output FOLDER]

Writes pruning_accuracy.json (gone on with where it is there), .md and .png. Criteria and repair see at most 200 unlabelled
samples of kws and vww, 1000 of ic and resnet20 (criteria 200), and none that is evaluated. "x2" prunes in two rounds, each
ranking anew, which is what `compress` does where nothing is repaired. A star marks what an earlier repair made, plain
least squares with one ridge for all layers.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

from trained import load

from tvmcompress.passes import PruneToBudget, Reconstruct, get_surgery

MODELS = ("kws", "vww", "ic", "resnet20")
CRITERIA = (
    *("output_energy", "output_energy x2", "output_energy x4", "reconstruction", "taylor", "fisher", "l2", "l1", "fpgm"),
    *("activation", "apoz", "random"),
)
FRACTIONS = (0.9, 0.8, 0.7, 0.6, 0.5)
SAMPLES = {"ic": 1000, "resnet20": 1000}
TORCH_PRUNING = {"ic": (44, 19, 12, 13), "resnet20": (63, 38, 30, 23)}
"""Its best criterion without repair at 80, 70, 60 and 50 % of the MACs (Torch-Pruning 1.6.1, one shot, global)."""

REPAIR = "clipped, chosen ridge"
"""What the repair is; points that another has made are measured anew."""

Results = dict[str, dict[str, Any]]


def main() -> None:
    """Measure what is missing, then write the table and the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--criteria", default=",".join(CRITERIA))
    parser.add_argument("--no-repair", action="store_true")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    place = options.output / "pruning_accuracy.json"
    results: Results = json.loads(place.read_text()) if place.exists() else {}
    for name in [] if options.table else options.models.split(","):
        for criterion in options.criteria.split(","):
            for fraction in FRACTIONS:
                measure(name, criterion, fraction, results, not options.no_repair)
                place.write_text(json.dumps(results, indent=1) + "\n")
    (options.output / "pruning_accuracy.md").write_text(table(results))
    plot(results, options.output / "pruning_accuracy.png")
    print(table(results))


loaded = functools.cache(lambda name: load(name, SAMPLES.get(name, 200)))


def measure(name: str, criterion: str, fraction: float, results: Results, repair: bool) -> None:
    """One point."""
    found = results.setdefault(name, {"original": None, "criteria": {}})
    point = found["criteria"].setdefault(criterion, {}).setdefault(str(fraction), {})
    if "pruned" in point and (point.get("repair") == REPAIR or not repair):
        return
    trained = loaded(name)
    found["original"] = found["original"] or trained.accuracy(trained.model)
    importance, _, rounds = criterion.partition(" x")
    removal = PruneToBudget(macs=fraction, importance=importance, rounds=int(rounds or 1), samples=[trained.calibration[:200]])
    pruned = trained.model.apply(removal)
    surgery = get_surgery(pruned.module)
    assert surgery is not None
    point |= {
        "macs": surgery.macs_after / surgery.macs_before,
        "params": surgery.params_after / surgery.params_before,
        "pruned": trained.accuracy(pruned),
    }
    if repair:
        repaired = pruned.apply(Reconstruct(trained.model.module, [trained.calibration]))
        point |= {"repaired": trained.accuracy(repaired), "repair": REPAIR}
    print(name, criterion, fraction, point, flush=True)


def table(results: Results) -> str:
    """Markdown: a row a model and criterion, pruned / repaired at each fraction."""
    lines = ["# Accuracy against multiply-accumulates", "", (__doc__ or "").split("\n\n")[-1].strip(), ""]
    lines += ["Each cell: accuracy in percent as pruned / after repair.", ""]
    heads = " | ".join(f"{fraction:.0%}" for fraction in FRACTIONS)
    lines += [f"| model | criterion | {heads} |", "|---|---|" + "---|" * len(FRACTIONS)]
    for name, found in results.items():
        lines.append(f"| {name} | unpruned: {found['original']:.1f} |" + " |" * len(FRACTIONS))
        if name in TORCH_PRUNING:
            cells = " | ".join(f"{value} / " for value in TORCH_PRUNING[name])
            lines.append(f"| {name} | Torch-Pruning, its best | | {cells} |")
        for criterion, curve in found["criteria"].items():
            cells = " | ".join(_cell(curve.get(str(fraction), {})) for fraction in FRACTIONS)
            lines.append(f"| {name} | {criterion} | {cells} |")
    lines += ["", "Share of the lost points that repair brings back, output_energy (the default):", ""]
    lines += [f"| model | {heads} |", "|---|" + "---|" * len(FRACTIONS)]
    for name, found in results.items():
        curve = found["criteria"]["output_energy"]
        lines.append(f"| {name} | " + " | ".join(_recovered(found["original"], curve[str(f)]) for f in FRACTIONS) + " |")
    missing = [
        f"{criterion} on {name}" for name in results for criterion in CRITERIA if criterion not in results[name]["criteria"]
    ]
    lines += ["", f"Not measured: {', '.join(missing)}."] if missing else []
    return "\n".join(lines) + "\n"


def _cell(point: dict[str, Any]) -> str:
    star = "" if point.get("repair") == REPAIR else "*"
    repaired = f"{point['repaired']:.1f}{star}" if "repaired" in point else ""
    return f"{point['pruned']:.1f} / {repaired}" if point else ""


def _recovered(original: float, point: dict[str, Any]) -> str:
    lost = original - point["pruned"]
    return f"{(point['repaired'] - point['pruned']) / lost:.0%}" if lost > 0 else "nothing lost"


def plot(results: Results, path: Path) -> None:
    """One panel a model: dashed as pruned, solid repaired."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    panels: Any = figure.subplots(2, 2).ravel()
    for panel, (name, found) in zip(panels, results.items()):
        for criterion, curve in found["criteria"].items():
            # Of one criterion the same in every panel.
            color = colormaps["tab20"](CRITERIA.index(criterion))
            for kind, style in (("repaired", "-"), ("pruned", "--")):
                points = [curve[str(fraction)] for fraction in FRACTIONS if kind in curve.get(str(fraction), {})]
                macs = [100, *(100 * point["macs"] for point in points)]
                values = [found["original"], *(point[kind] for point in points)]
                label = criterion if kind == "repaired" else None
                panel.plot(macs, values, style, marker="o", markersize=3, color=color, label=label)
        if name in TORCH_PRUNING:
            panel.plot((80, 70, 60, 50), TORCH_PRUNING[name], "kx", label="Torch-Pruning's best, as pruned")
        panel.set_title(name)
        panel.set_xlabel("multiply-accumulates left, %")
        panel.set_ylabel("accuracy, %")
        panel.invert_xaxis()
        panel.grid(alpha=0.3)
    labels: dict[str, Any] = {}
    for panel in panels:
        labels |= dict(zip(*reversed(panel.get_legend_handles_labels())))
    figure.legend(labels.values(), labels.keys(), fontsize=8, loc="outside right center")
    figure.suptitle("Solid: repaired by least squares without labels. Dashed: as pruned.")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
