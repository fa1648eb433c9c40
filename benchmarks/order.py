"""Pruning and then quantizing, beside the other order.

Usage: OMP_NUM_THREADS=1 python benchmarks/order.py [--models kws,vww,ic,resnet20] [--precisions int8,int4] [--macs 0.7]

Pruned to a share of the multiply-accumulates by the default criterion, repaired by least squares, nothing trained. The other
order quantizes first, takes the rounded weights for the network that is pruned and repaired ("dequantize"), and quantizes
again. Everything sees 200 unlabelled samples; accuracy of the integer model on 734 images of ic and resnet20 and 300 samples
of kws and vww, none of them among the 200.
"""

from __future__ import annotations

import argparse
from typing import Any

from trained import Trained, load

from tvmcompress import Recipe, compress

ORDERS = {
    "prune, quantize": ("prune", "quantize"),
    "quantize, prune, quantize": ("quantize", "dequantize", "prune", "quantize"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="kws,vww,ic,resnet20")
    parser.add_argument("--precisions", default="int8,int4")
    parser.add_argument("--macs", type=float, default=0.7)
    asked = parser.parse_args()
    print("| model | precision | float | quantized alone |" + "".join(f" {name} |" for name in ORDERS))
    print("|---|---|---|---|---|---|")
    for name in asked.models.split(","):
        trained = load(name, 200)
        for precision in asked.precisions.split(","):
            values = [trained.accuracy(trained.model)]
            values += [accuracy(trained, steps, precision, asked.macs) for steps in (("quantize",), *ORDERS.values())]
            print("| " + " | ".join([name, precision, *(f"{value:.2f}" for value in values)]) + " |", flush=True)


def accuracy(trained: Trained, steps: tuple[str, ...], precision: str, macs: float) -> float:
    """Of what steps make of a model."""
    options: dict[str, dict[str, Any]] = {"prune": {"target_macs": macs}, "quantize": {"precision": precision}}
    entries = [{"step": step, **options.get(step, {})} for step in steps]
    return trained.accuracy(compress(trained.model, trained.calibration, recipe=Recipe.of({"steps": entries})).model)


if __name__ == "__main__":
    main()
