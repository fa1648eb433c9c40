"""int4 and int8 after training under quantization.

Usage: OMP_NUM_THREADS=1 python benchmarks/qat.py [--models ic,resnet20,kws,vww] [--precisions int4,int8] [--rate 0.002]
           [--activation-bits 8]

Ranges from unlabelled samples, repaired as by default, then trained to do what the float model does (its predictions alone, no
labels), the float model's weights as the beginning: ic and resnet20 on the 8068 training images with flips and crops, kws and
vww on the 200 samples that calibrate, of which there are mixtures (kws) or flips and crops (vww). A tenth is held back and says
which epoch is kept; ranges and repairs do not see it. Accuracy of the integer model on 734 images, on 300 samples of kws and
vww (one is 0.33 points), which nothing else looks at; lost is what the trained one lacks of float.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from trained import folder, load, pixels

from tvmcompress import Model, compress, load_data
from tvmcompress.data.dataset import Dataset
from tvmcompress.passes import LowerQDQ
from tvmcompress.recipe.finetune import FinetuneRecipe
from tvmcompress.training.fake_quantization import train_quantized
from tvmcompress.training.held_back import unjudged

_IMAGES: dict[str, Any] = {"augment": ("flip", "crop")}
RUNS: dict[str, dict[str, Any]] = {
    "ic": {"epochs": 4, **_IMAGES},
    "resnet20": {"epochs": 1, **_IMAGES},
    "kws": {"epochs": 60, "batch_size": 32, "mixup": 1.0, "temperature": 4.0},
    "vww": {"epochs": 20, "batch_size": 32, **_IMAGES},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=",".join(RUNS))
    parser.add_argument("--precisions", default="int4,int8")
    parser.add_argument("--rate", type=float, default=0.002)
    parser.add_argument("--activation-bits", type=int, default=8)
    options = parser.parse_args()
    print("| model | precision | float | rounded | repaired | trained | lost | epochs | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for precision in options.precisions.split(","):
        for name in options.models.split(","):
            print(row(name, precision, options.rate, options.activation_bits), flush=True)


def row(name: str, precision: str, rate: float, bits: int) -> str:
    """One model in one precision."""
    photographs = name in ("ic", "resnet20")
    trained = load(name, 500 if photographs else 200)
    data = trained.calibration
    if photographs:
        data = pixels(np.load(folder() / "data" / "cifar10_train8068.npz")["x_uint8"], name)
    recipe = FinetuneRecipe(learning_rate=rate, **RUNS[name])
    samples, learned = (load_data(x, trained.model.inputs) for x in (trained.calibration, data))
    calibration = unjudged(samples, learned, recipe)
    repairs: tuple[list[str] | None, ...] = ([], None)
    rounded, repaired = (quantized(trained.model, calibration, precision, repair, bits) for repair in repairs)
    begun = time.process_time()
    tuned = train_quantized(repaired, learned, original=trained.model, teacher=trained.model, **recipe.model_dump())
    seconds = time.process_time() - begun
    print(name, tuned.provenance[-1], file=sys.stderr, flush=True)
    versions = [trained.model, *(model.apply(LowerQDQ()) for model in (rounded, repaired, tuned))]
    right = [trained.accuracy(model) for model in versions]
    what = precision if bits == 8 else f"{precision}, activations of {bits} bits"
    cells = [name, what, *(f"{value:.2f}" for value in right), f"{right[0] - right[-1]:.2f}"]
    return "| " + " | ".join([*cells, str(RUNS[name]["epochs"]), f"{seconds:.0f}"]) + " |"


def quantized(model: Model, calibration: Dataset, precision: str, repair: Sequence[str] | None, bits: int) -> Model:
    """A model in QDQ form."""
    table: dict[str, Any] = {"precision": precision, "activation_bits": bits}
    if repair is not None:
        table["repair"] = list(repair)
    made = compress(model, calibration, quantize=table).qdq_model
    assert made is not None
    return made


if __name__ == "__main__":
    main()
