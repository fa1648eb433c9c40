"""Training with labels what compression has left of the CIFAR-10 models.

Usage: OMP_NUM_THREADS=1 python benchmarks/finetuning.py PART [--models ic,resnet20] [--seeds 3] [--first 0]
           [--checkpoint FOLDER] [--starts FOLDER] [--importance CRITERION] [--layers] [--option NAME=VALUE ...]

Parts:
    long            the best that ten minutes of one core give, at half of the multiply-accumulates
    budget          labels alone beside labels and teacher in the same time
    student         a student with a quarter of resnet20's multiply-accumulates, with and without its teacher
    torch-pruning   what Torch-Pruning leaves of them, trained alike (needs torch-pruning)

Pruned by what the repair leaves of every group, or another criterion, and repaired block by block (`--repair-blocks`) from 1000
unlabelled training images, then trained on the 8068 labelled ones, some of which are held back and say which epoch is
kept, with flips and crops, in bfloat16. The teacher is the original. Accuracy on 734 test images, which nothing else looks at.
CPU seconds are those of one thread.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pruned import start
from trained import Trained, folder, load, pixels

from tvmcompress import Model, finetune
from tvmcompress.passes import PruneChannels, Reconstruct
from tvmcompress.passes.graph.analysis import count_macs

COMMON: dict[str, Any] = {"augment": ("flip", "crop"), "mixed_precision": True}
"""Options of every training."""

LONG: dict[str, dict[str, Any]] = {
    "ic": {"epochs": 80, "learning_rate": 0.015, "temperature": 4.0, "alpha": 0.9},
    "resnet20": {
        "epochs": 50,
        "learning_rate": 0.006,
        "temperature": 2.0,
        "alpha": 1.0,
        "features": 3.0,
        "mixup": 1.0,
        "cutmix": 0.5,
        "validation": 0.02,
    },
}
"""Of the longest trainings."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison in the same time.

    Attributes:
        epochs: So many as the time allows.
        options: Of its training, beside `COMMON`.
    """

    epochs: int
    options: dict[str, Any]


BUDGET = {
    "ic": (Arm(13, {"learning_rate": 0.015}), Arm(10, {"learning_rate": 0.015, "temperature": 4.0, "alpha": 0.9})),
    "resnet20": (Arm(7, {"learning_rate": 0.01}), Arm(5, {"learning_rate": 0.01, "temperature": 4.0, "alpha": 0.9})),
    "student": (
        Arm(45, {"learning_rate": 0.02, "batch_size": 128}),
        Arm(38, {"learning_rate": 0.03, "batch_size": 128, "temperature": 4.0, "alpha": 1.0, "cutmix": 0.3, "views": 8}),
    ),
}
"""Without and with a teacher, which costs time of its own."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("long", "budget", "student", "torch-pruning"))
    parser.add_argument("--models", default="ic,resnet20")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--starts", type=Path, help="a folder in which pruned and repaired models are kept")
    parser.add_argument("--importance", default="repaired", help="the criterion of the parts `long` and `budget`")
    parser.add_argument("--layers", action="store_true", help="repair layer by layer alone, in these parts")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the training")
    options = parser.parse_args()
    names = options.models.split(",")
    COMMON.update({name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in options.option)})
    seeds = range(options.first, options.first + options.seeds)
    if options.part == "long":
        long(names, options.importance, not options.layers, options.checkpoint, options.starts, seeds)
    elif options.part == "budget":
        heading(seeds)
        for name in names:
            trained = load(name, 1000)
            begin = start(trained, 0.5, options.importance, not options.layers, kept=options.starts)
            compared(name, name, trained, begin.model, BUDGET[name], seeds)
    elif options.part == "student":
        student(seeds)
    else:
        torch_pruning(names, seeds)


def long(names: list[str], importance: str, blocks: bool, checkpoint: Path | None, starts: Path | None, seeds: range) -> None:
    """Ten minutes each, a line for every seed."""
    titles = "model | seed | original | repaired | CPU seconds | trained | epochs | CPU seconds | how"
    print(f"| {titles} |", "|---" * 9 + "|", sep="\n")
    for name in names:
        trained = load(name, 1000)
        begin = start(trained, 0.5, importance, blocks, kept=starts)
        before = [f"{trained.accuracy(model):.2f}" for model in (trained.model, begin.model)]
        for seed in seeds:
            place = None if checkpoint is None else checkpoint / f"{name}-{seed}"
            how = {**LONG[name], "seed": seed, **COMMON, "checkpoint": place}
            tuned, seconds = train(name, begin.model, trained.model, how)
            cells = [name, str(how["seed"]), *before, f"{begin.seconds:.0f}"]
            cells += [f"{trained.accuracy(tuned):.2f}", str(how["epochs"]), f"{seconds:.0f}"]
            cells += [tuned.provenance[-1].partition(": ")[2]]
            print("| " + " | ".join(cells) + " |", flush=True)


def heading(seeds: range) -> None:
    """Of a table of `compared`."""
    print(f"| model | before | learns from | epochs | {len(seeds)} seeds | mean | CPU seconds |", "|---" * 7 + "|", sep="\n")


def compared(what: str, name: str, trained: Trained, begin: Model, arms: tuple[Arm, ...], seeds: range) -> None:
    """Two lines: without a teacher and with one, in turns, since what runs beside makes processors slower or faster.

    Args:
        what: Begins the lines.
        name: Of the data.
        trained: The teacher.
        begin: What is trained.
        arms: Without and with a teacher.
        seeds: Of the runs.
    """
    runs: tuple[list[tuple[float, float]], ...] = ([], [])
    for seed in seeds:
        for arm, teacher, found in zip(arms, (None, trained.model), runs):
            tuned, seconds = train(name, begin, teacher, {**arm.options, "epochs": arm.epochs, **COMMON, "seed": seed})
            found.append((trained.accuracy(tuned), seconds))
            said = f"{what}, seed {seed}: {found[-1][0]:.2f}, {seconds:.0f} s, {tuned.provenance[-1]}"
            print(said, file=sys.stderr, flush=True)
    for arm, who, found in zip(arms, ("labels", "labels and teacher"), runs):
        right = [accuracy for accuracy, _ in found]
        cells = [what, f"{trained.accuracy(begin):.2f}", who, str(arm.epochs), ", ".join(f"{value:.2f}" for value in right)]
        cells += [f"{statistics.mean(right):.2f}", f"{statistics.mean(seconds for _, seconds in found):.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def student(seeds: range) -> None:
    """Half of resnet20's channels, the largest, repaired layer by layer, which is what `distill --width 0.5` begins with."""
    trained = load("resnet20", 1000)
    bare = trained.model.apply(PruneChannels(0.5, importance="l2"))
    begun = time.process_time()
    small = bare.apply(Reconstruct(trained.model.module, [trained.calibration]))
    seconds, share = time.process_time() - begun, count_macs(small.module) / count_macs(trained.model.module)
    print(f"{share:.3f} of the multiply-accumulates, {trained.accuracy(bare):.2f} % before the repair of {seconds:.0f} s\n")
    heading(seeds)
    compared("student, repaired", "resnet20", trained, small, BUDGET["student"], seeds)


def torch_pruning(names: list[str], seeds: range) -> None:
    """Its choice of channels (group L2, global, one shot, the smallest ratio that leaves half) in the place of ours."""
    import copy

    import pruning_vs_torch_pruning as other
    import torch

    heading(seeds)
    for name in names:
        trained = load(name, 1000)
        network = other.resnet(1) if name == "ic" else other.resnet(3, even=True)
        other.fill(network, trained.model.params)
        end = [torch.nn.Softmax(1)] if name == "ic" else []
        whole = count_macs(trained.model.module)
        same = other.imported(torch.nn.Sequential(network, *end).eval())
        assert np.abs(same.run(trained.images[:8])[0] - trained.model.run(trained.images[:8])[0]).max() < 1e-3
        for step in range(1, 50):
            made = copy.deepcopy(network)
            other.pruner(made, 0.02 * step, global_=True).step()
            pruned = other.imported(torch.nn.Sequential(made, *end).eval())
            if count_macs(pruned.module) <= 0.5 * whole:
                break
        what = f"{name}, Torch-Pruning, {count_macs(pruned.module) / whole:.1%} of the multiply-accumulates"
        compared(what, name, trained, pruned, BUDGET[name], seeds)


def train(name: str, begin: Model, teacher: Model | None, options: dict[str, Any]) -> tuple[Model, float]:
    """A model trained, and the CPU seconds that it took."""
    file = np.load(folder() / "data" / "cifar10_train8068.npz")
    data = (pixels(file["x_uint8"], name), file["y"])
    begun = time.process_time()
    tuned = finetune(begin, data, teacher=teacher, **options)
    return tuned, time.process_time() - begun


if __name__ == "__main__":
    main()
