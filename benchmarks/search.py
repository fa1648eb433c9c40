"""`tvmcompress search` beside twenty recipes made by hand, ResNet8 on CIFAR-10 for cortex-m4.

Usage: OMP_NUM_THREADS=1 python benchmarks/search.py [--minutes 15] [--max-drop 1] [--folder FOLDER] [--bound 60]

Calibrated on 512 unlabelled training images, trained (where a point trains) on the 8068 labelled ones, compared on 367 test
images; the same for search and recipes. Executed instructions under QEMU, exact and no time. Pruned by output energy and
repaired where nothing else is said; the epochs of recipes by hand are 6, at a rate of 0.006 with flips, crops and the original
as teacher.

With --bound nothing is searched: a few networks are trained for so many epochs, at a rate twice as large. That is longer than
a search of some minutes can afford.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from trained import folder, load, pixels

from tvmcompress import Recipe, load_data
from tvmcompress.data.splits import split
from tvmcompress.exploration.attempt import Attempts, Samples
from tvmcompress.exploration.explore import explore
from tvmcompress.exploration.goal import Goal
from tvmcompress.exploration.record import SearchPoint
from tvmcompress.exploration.space import Point

TRAINED = {"epochs": 6, "learning_rate": 0.006, "distill": True, "augment": ("flip", "crop")}
BOUND = {**TRAINED, "learning_rate": 0.012}
BOUND_SHARES = (0.4, 0.75)
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def by_hand() -> list[Point]:
    """Twenty recipes."""

    def point(prune: dict[str, Any] | None, train: bool = False, **build: Any) -> Point:
        tables: dict[str, Any] = {"quantize": {}}
        if prune is not None:
            tables["prune"] = {"importance": "output_energy", **prune}
        if train:
            tables["finetune"] = TRAINED
        return Point(Recipe.of(tables), build)

    found = [point(None), point(None, spend_flash=65536)]
    found += [point({"target_macs": share}) for share in SHARES]
    found += [point({"target_macs": share}, train=True) for share in SHARES]
    found += [point({"target_macs": share, "importance": "l2"}, train=True) for share in (0.8, 0.6)]
    found += [point({"ratio": ratio}, train=True) for ratio in (0.1, 0.2)]
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bound", type=int, metavar="EPOCHS")
    options = parser.parse_args()
    trained = load("ic", 512)
    model = trained.model
    file = np.load(folder() / "data" / "cifar10_train8068.npz")
    training = load_data((pixels(file["x_uint8"], "ic"), file["y"]), model.inputs)
    compared, _ = split(load_data((trained.images, trained.labels), model.inputs), 0.5)
    samples = Samples(load_data(trained.calibration, model.inputs), training, compared)
    goal = Goal("cortex-m4", max_drop=100 if options.bound else options.max_drop)
    print("# Search beside recipes made by hand", "", (__doc__ or "").split("\n\n")[2].strip(), "", sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        place = options.folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        attempts = Attempts(model, samples, goal, place)
        if options.bound:
            bound(attempts, options.bound)
            return
        result = explore(attempts, minutes=options.minutes, epochs=(2, 6))
        plain = next(point for point in result.points if point.recipe.prune is None and point.cost is not None)
        print(
            f"{options.minutes:g} minutes of search: {len(result.points)} points; at most {options.max_drop:g} points lost.", ""
        )
        head("front of the search", plain)
        for number in result.front:
            row(result.point(number), plain)
        made = [attempts.try_point(number, point) for number, point in enumerate(by_hand())]
        print()
        head("recipe made by hand", plain)
        for record in made:
            row(record, plain)
        best = min((point.cost for point in made if point.feasible and point.cost is not None), default=float("inf"))
        least = result.point(result.front[0]).cost or 0.0
        print("", f"Least instructions within the limit: search {least:,.0f}, by hand {best:,.0f}.", sep="\n")


def bound(attempts: Attempts, epochs: int) -> None:
    """Print what long training keeps, beside int8 unpruned."""
    points = [Point(Recipe.of({"quantize": {}}), {})]
    for share in BOUND_SHARES:
        prune = {"importance": "output_energy", "target_macs": share}
        points.append(Point(Recipe.of({"prune": prune, "finetune": {**BOUND, "epochs": epochs}, "quantize": {}}), {}))
    plain, *others = (attempts.try_point(number, point) for number, point in enumerate(points))
    head(f"trained for {epochs} epochs", plain)
    for record in others:
        row(record, plain)


def head(name: str, plain: SearchPoint) -> None:
    """The head of a table."""
    print(f"| {name} | points lost | instructions | of int8 unpruned ({plain.cost or 0:,.0f}) | why no further |", flush=True)
    print("|---|---|---|---|---|")


def row(point: SearchPoint, plain: SearchPoint) -> None:
    """A point."""
    lost = "" if point.lost is None else f"{point.lost:.2f}"
    cost = "" if point.cost is None else f"{point.cost:,.0f}"
    share = "" if point.cost is None or not plain.cost else f"{point.cost / plain.cost:.3f}"
    print(f"| {point.words} | {lost} | {cost} | {share} | {point.reason or ''} |", flush=True)


if __name__ == "__main__":
    main()
