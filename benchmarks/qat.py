"""int4 weights after training under quantization, on the CIFAR-10 models.

Usage: OMP_NUM_THREADS=1 python benchmarks/qat.py [--models ic,resnet20] [--precisions int8,int4] [--epochs 4]
       [--rate 0.002] [--alpha 1]

Ranges from 500 unlabelled training images, then training on the 8068 labelled ones (a tenth held back) with flips, crops and
the original as teacher (--alpha: its share beside labels), the float model's weights as the beginning. Accuracy on 734 test
images, of the integer model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from trained import folder, load, pixels

from tvmcompress import Model, compress
from tvmcompress.passes import LowerQDQ
from tvmcompress.training.fake_quantization import train_quantized


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="ic,resnet20")
    parser.add_argument("--precisions", default="int8,int4")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.002)
    parser.add_argument("--alpha", type=float, default=1.0)
    options = parser.parse_args()
    print("# Training under quantization", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| model | precision | float | rounded | repaired | trained | epochs | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        for precision in options.precisions.split(","):
            print(row(name, precision, options.epochs, options.rate, options.alpha), flush=True)


def row(name: str, precision: str, epochs: int, rate: float, alpha: float) -> str:
    """One model in one precision."""
    trained = load(name, 500)
    file = np.load(folder() / "data" / "cifar10_train8068.npz")
    data = (pixels(file["x_uint8"], name), file["y"])
    rounded, repaired = (quantized(trained.model, trained.calibration, precision, repair) for repair in ([], None))
    begun = time.process_time()
    tuned = train_quantized(
        repaired,
        data,
        original=trained.model,
        teacher=trained.model,
        epochs=epochs,
        learning_rate=rate,
        alpha=alpha,
        augment=("flip", "crop"),
    )
    seconds = time.process_time() - begun
    versions = [trained.model, *(model.apply(LowerQDQ()) for model in (rounded, repaired, tuned))]
    values = (f"{trained.accuracy(model):.2f}" for model in versions)
    return "| " + " | ".join([name, precision, *values, str(epochs), f"{seconds:.0f}"]) + " |"


def quantized(model: Model, calibration: np.ndarray, precision: str, repair: Sequence[str] | None) -> Model:
    """A model in QDQ form."""
    table = {"precision": precision, **({} if repair is None else {"repair": list(repair)})}
    made = compress(model, calibration, quantize=table).qdq_model
    assert made is not None
    return made


if __name__ == "__main__":
    main()
