"""Fine-tuning of the CIFAR-10 models pruned to half of their multiply-accumulates.

Usage: OMP_NUM_THREADS=1 python benchmarks/finetuning.py [--models ic,resnet20] [--checkpoint FOLDER]

Pruned by the default criterion, repaired from 1000 unlabelled training images, then trained on the 8068 labelled ones (a
tenth held back) with flips, crops and the original as teacher. Accuracy on 734 test images. With --checkpoint a run that was
stopped goes on. Others' fine-tuning: Torch-Pruning's models at the same multiply-accumulates, the same images, plain / with
distillation, on twice as many test images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from trained import folder, load, pixels

from tvmcompress import finetune
from tvmcompress.passes import PruneToBudget, Reconstruct

RUNS = {"ic": (4, 0.01), "resnet20": (6, 0.02)}
"""Epochs and learning rate; 0.02 is too much for ic, which then does not improve on what repair gives."""

OTHERS = {"ic": "80.65 / 80.86 (400 s)", "resnet20": "88.01 / 88.76 (540 s)"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="ic,resnet20")
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    print("# Fine-tuning after pruning", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| model | original | pruned to 50 % | repaired | fine-tuned | epochs | CPU seconds | Torch-Pruning + fine-tuning |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        print(row(name, options.checkpoint), flush=True)


def row(name: str, checkpoint: Path | None) -> str:
    """One model."""
    trained = load(name, 1000)
    epochs, rate = RUNS[name]
    file = np.load(folder() / "data" / "cifar10_train8068.npz")
    data = (pixels(file["x_uint8"], name), file["y"])
    pruned = trained.model.apply(PruneToBudget(macs=0.5, importance="output_energy", samples=[trained.calibration[:200]]))
    repaired = pruned.apply(Reconstruct(trained.model.module, [trained.calibration]))
    start = time.process_time()
    tuned = finetune(
        repaired,
        data,
        teacher=trained.model,
        epochs=epochs,
        learning_rate=rate,
        augment=("flip", "crop"),
        checkpoint=None if checkpoint is None else checkpoint / name,
    )
    seconds = time.process_time() - start
    values = (f"{trained.accuracy(model):.1f}" for model in (trained.model, pruned, repaired, tuned))
    return "| " + " | ".join([name, *values, str(epochs), f"{seconds:.0f}", OTHERS[name]]) + " |"


if __name__ == "__main__":
    main()
