"""Training with labels what compression has left of the CIFAR-10 models.

Usage: OMP_NUM_THREADS=1 python benchmarks/finetuning.py PART [--models ic,resnet20] [--seeds 3] [--checkpoint FOLDER]
           [--starts FOLDER] [--option NAME=VALUE ...]

Parts:
    long            the best that ten minutes of one core give, at half of the multiply-accumulates
    budget          labels alone beside labels and teacher in the same time
    student         a student with a quarter of resnet20's multiply-accumulates, with and without its teacher
    torch-pruning   what Torch-Pruning leaves of ic, trained alike (needs torch-pruning)

Pruned by what the repair leaves of every group and repaired block by block (`--importance repaired --repair-blocks`) from 1000
unlabelled training images, then trained on the 8068 labelled ones, a tenth of which is held back and says which epoch is
kept, with flips and crops, in bfloat16. The teacher is the original. Accuracy on 734 test images, which nothing else looks at.
CPU seconds are those of one thread.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from pruned import start
from trained import Trained, folder, load, pixels

from tvmcompress import Model, finetune
from tvmcompress.passes import PruneChannels
from tvmcompress.passes.graph.analysis import count_macs

COMMON: dict[str, Any] = {"augment": ("flip", "crop"), "mixed_precision": True}
ALONE: dict[str, dict[str, Any]] = {"ic": {"learning_rate": 0.015}, "resnet20": {"learning_rate": 0.0085, "batch_size": 32}}
TAUGHT: dict[str, dict[str, Any]] = {"ic": {"temperature": 4.0, "alpha": 0.9}, "resnet20": {"temperature": 2.0, "alpha": 0.9}}
"""Options of every training, of a network's, and of it with a teacher."""

LONG = {"ic": 80, "resnet20": 20}
BUDGET = {"ic": (14, 10), "resnet20": (7, 5), "student": (12, 6)}
"""Epochs without and with a teacher, which costs about as much as the steps of what it teaches."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("long", "budget", "student", "torch-pruning"))
    parser.add_argument("--models", default="ic,resnet20")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--starts", type=Path, help="a folder in which pruned and repaired models are kept")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the training")
    options = parser.parse_args()
    names = options.models.split(",")
    COMMON.update({name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in options.option)})
    if options.part == "long":
        long(names, options.checkpoint, options.starts)
    elif options.part == "budget":
        heading(options.seeds)
        for name in names:
            trained = load(name, 1000)
            compared(name, trained, start(trained, 0.5, kept=options.starts).model, options.seeds)
    elif options.part == "student":
        student(options.seeds)
    else:
        torch_pruning(options.seeds)


def long(names: list[str], checkpoint: Path | None, starts: Path | None) -> None:
    """Ten minutes each."""
    print("| model | original | repaired | CPU seconds | trained | epochs | CPU seconds | how |", "|---" * 8 + "|", sep="\n")
    for name in names:
        trained = load(name, 1000)
        begin = start(trained, 0.5, kept=starts)
        place = None if checkpoint is None else checkpoint / name
        epochs = COMMON.get("epochs", LONG[name])
        tuned, seconds = train(name, trained, begin.model, trained.model, epochs, checkpoint=place)
        cells = [name, *(f"{trained.accuracy(model):.2f}" for model in (trained.model, begin.model)), f"{begin.seconds:.0f}"]
        cells += [f"{trained.accuracy(tuned):.2f}", str(epochs), f"{seconds:.0f}", tuned.provenance[-1].partition(": ")[2]]
        print("| " + " | ".join(cells) + " |", flush=True)


def heading(seeds: int) -> None:
    """Of a table of `compared`."""
    print(f"| model | learns from | epochs | {seeds} seeds | mean | CPU seconds each |", "|---|---|---|---|---|---|", sep="\n")


def compared(name: str, trained: Trained, begin: Model, seeds: int, what: str = "") -> None:
    """Two lines: without a teacher and with one."""
    for taught, epochs in zip((False, True), BUDGET.get(what, BUDGET[name])):
        teacher = trained.model if taught else None
        runs = [train(name, trained, begin, teacher, epochs, seed=seed) for seed in range(seeds)]
        right = [trained.accuracy(model) for model, _ in runs]
        cells = [what or name, "labels and teacher" if taught else "labels", str(epochs)]
        cells += [", ".join(f"{value:.2f}" for value in right), f"{statistics.mean(right):.2f}"]
        print("| " + " | ".join([*cells, f"{statistics.mean(seconds for _, seconds in runs):.0f}"]) + " |", flush=True)


def student(seeds: int) -> None:
    """Half of resnet20's channels, the largest ones, which is what `distill --width 0.5` makes."""
    trained = load("resnet20", 1000)
    small = trained.model.apply(PruneChannels(0.5, importance="l2"))
    share = count_macs(small.module) / count_macs(trained.model.module)
    print(f"{share:.3f} of the multiply-accumulates, {trained.accuracy(small):.2f} % before training", "", sep="\n")
    heading(seeds)
    compared("resnet20", trained, small, seeds, "student")


def torch_pruning(seeds: int) -> None:
    """Its choice of channels (group L2, global, one shot, the smallest ratio that leaves half) in the place of ours."""
    import copy

    import pruning_vs_torch_pruning as other
    import torch

    trained = load("ic", 1000)
    network = other.resnet(1)
    other.fill(network, trained.model.params)
    whole = count_macs(trained.model.module)
    for step in range(1, 50):
        made = copy.deepcopy(network)
        other.pruner(made, 0.02 * step, global_=True).step()
        pruned = other.imported(torch.nn.Sequential(made, torch.nn.Softmax(1)).eval())
        if count_macs(pruned.module) <= 0.5 * whole:
            break
    share = count_macs(pruned.module) / whole
    print(f"{share:.3f} of the multiply-accumulates, {trained.accuracy(pruned):.2f} % before training", "", sep="\n")
    heading(seeds)
    compared("ic", trained, pruned, seeds, "ic, Torch-Pruning")


def train(name: str, trained: Trained, begin: Model, teacher: Model | None, epochs: int, **options: Any) -> tuple[Model, float]:
    """A model trained, and the CPU seconds that it took."""
    file = np.load(folder() / "data" / "cifar10_train8068.npz")
    data = (pixels(file["x_uint8"], name), file["y"])
    begun = time.process_time()
    given = {"epochs": epochs, **ALONE[name], **({} if teacher is None else TAUGHT[name]), **COMMON, **options}
    tuned = finetune(begin, data, teacher=teacher, **given)
    return tuned, time.process_time() - begun


if __name__ == "__main__":
    main()
