"""Accuracy after pruning and solving alone: how units are chosen, how they leave, and how what stays is repaired.

Usage: python benchmarks/solving.py [--models ic,resnet20,...] [--fractions 0.7,0.5]
           [--methods 'repaired;repaired, blocks'] [--output FOLDER]

Writes solving.json (gone on with where it is there) and solving.md; an empty name measures nothing. Everything sees at most 200
unlabelled samples of kws and vww, 1000 of ic and resnet20 (criteria 200), and none that is evaluated. "left" is how far the
outputs are from the original's on 400 unlabelled samples that nothing else here saw (of CIFAR-10; kws and vww have none): the
divergence of probabilities, or the squared error relative to the variance. By it methods compare without labels; the accuracy
of 734 (CIFAR-10) or 300 samples is uncertain by a point or more. Seconds are of CPU on one core, busy besides, for choosing
and for the repair.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

from trained import Trained, load

from tvmcompress.passes import PruneToBudget, Reconstruct
from tvmcompress.passes.graph.interpreter import Interpreter
from tvmcompress.passes.pruning.importance import Criterion, get_criterion, prepare
from tvmcompress.passes.repair.repaired_damage import Trial

MODELS = {"ic": (0.7, 0.5), "resnet20": (0.5,), "kws": (0.7, 0.5), "vww": (0.5,)}
METHODS = {
    "output_energy (the default)": ("output_energy", "remove", False),
    "output_energy, blocks": ("output_energy", "remove", True),
    "reconstruction, blocks": ("reconstruction", "remove", True),
    "repaired": ("repaired", "remove", False),
    "repaired, blocks": ("repaired", "remove", True),
    "repaired, folded": ("repaired", "fold", False),
    "repaired, folded or removed": ("repaired", "best", False),
    "repaired, folded or removed, blocks": ("repaired", "best", True),
}
GOALS = {("resnet20", 0.5): "87.0", ("ic", 0.5): "77.0", ("ic", 0.7): "83.9", ("kws", 0.5): "86.5", ("kws", 0.7): "89.3"}
Results = dict[str, Any]


def main() -> None:
    """Measure what is missing, then write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--fractions", default="0.7,0.5")
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    place = options.output / "solving.json"
    results: Results = json.loads(place.read_text()) if place.exists() else {}
    for name in options.models.split(","):
        for fraction in (share for share in MODELS[name] if str(share) in options.fractions.split(",")) if name else ():
            for method in options.methods.split(";"):
                measure(name, fraction, method, results)
                place.write_text(json.dumps(results, indent=1) + "\n")
    (options.output / "solving.md").write_text(table(results))


@functools.cache
def loaded(name: str) -> tuple[Trained, list[Any]]:
    """A model with its data, and unlabelled samples that nothing looks at."""
    photographs = name in ("ic", "resnet20")
    trained = load(name, 2000 if photographs else 200)
    fresh = [trained.calibration[1000:]] if photographs else []
    return Trained(name, trained.model, trained.calibration[:1000], trained.images, trained.labels), fresh


class Measured:
    """A criterion that has looked at the network already."""

    def __init__(self, name: str, criterion: Criterion) -> None:
        self.name, self.criterion = name, criterion

    def __call__(self, *arguments: Any) -> Any:
        """The scores."""
        return self.criterion(*arguments)


@functools.cache
def criterion_of(name: str, importance: str) -> tuple[Measured, float]:
    """The criterion ready for a model, and the seconds it took."""
    trained, _ = loaded(name)
    start = time.process_time()
    found = prepare(get_criterion(importance, [trained.calibration[:200]]), trained.model.module)
    return Measured(importance, found), time.process_time() - start


def measure(name: str, fraction: float, method: str, results: Results) -> None:
    """One cell."""
    trained, fresh = loaded(name)
    found = results.setdefault(name, {"original": trained.accuracy(trained.model), "points": {}})
    points = found["points"].setdefault(str(fraction), {})
    if method in points:
        return
    importance, selection, blocks = METHODS[method]
    criterion, seconds = criterion_of(name, importance)
    start = time.process_time()
    pruned = trained.model.apply(
        PruneToBudget(
            macs=fraction,
            importance=criterion,
            normalization="none",
            selection=selection,
            samples=[trained.calibration[:200]],
        )
    )
    chosen = time.process_time()
    repaired = pruned.apply(Reconstruct(trained.model.module, [trained.calibration], blocks=blocks))
    done = time.process_time()
    point = {"accuracy": trained.accuracy(repaired), "choosing": seconds + chosen - start, "repair": done - chosen}
    if fresh:
        trial = Trial(trained.model.module, fresh)
        point["left"] = trial.compare(Interpreter(repaired.module)(trial.held))
    points[method] = point
    print(name, fraction, method, point, flush=True)


def table(results: Results) -> str:
    """Markdown: a row a model, share and method."""
    lines = ["# Pruning repaired by solving alone", "", (__doc__ or "").split("\n\n")[-1].strip(), ""]
    lines += ["| model | MACs | how | accuracy, % | goal | left | choosing, s | repair, s |", "|---" * 8 + "|"]
    for name, found in results.items():
        lines.append(f"| {name} | 100 % | unpruned | {found['original']:.2f} | | | | |")
        for fraction, points in found["points"].items():
            goal = GOALS.get((name, float(fraction)), "")
            for method, point in points.items():
                left = f"{point['left']:.3f}" if "left" in point else ""
                cells = (f"{point['accuracy']:.2f}", goal, left, f"{point['choosing']:.1f}", f"{point['repair']:.1f}")
                lines.append(f"| {name} | {float(fraction):.0%} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
