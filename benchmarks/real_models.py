"""Trained models from end to end: accuracy, instructions, flash and RAM of the original, int8, pruned, and both.

Usage: python benchmarks/real_models.py [--models ic,resnet20,kws,vww,ad] [--macs 0.7,0.5]

Calibrated on 100 samples for integers, repaired on 200 (kws, vww, ad) or 1000 (ic, resnet20), evaluated on others; the
autoencoder has no labels, its figure is the squared error of the reconstruction relative to the float model's output.
Instructions are executed instructions under QEMU; time is a median on this machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from trained import FILES, Trained, load

import tvmcompress
from tvmcompress.compression import CompressionResult
from tvmcompress.data.dataset import load_data
from tvmcompress.measuring.benchmarking import check
from tvmcompress.model import Model
from tvmcompress.passes.graph.analysis import count_macs, count_params
from tvmcompress.report.units import count, duration, size

REPAIR = {"ic": 1000, "resnet20": 1000}
CALIBRATION = 100


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=",".join(FILES))
    parser.add_argument("--macs", default="0.7,0.5")
    options = parser.parse_args()
    print("| model | | accuracy | parameters | MACs | x86 | Cortex-M4 | flash | RAM |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        trained = load(name, REPAIR.get(name, 200))
        rows = {"original": trained.model, "int8": compress(trained, quantize="int8").model}
        for fraction in options.macs.split(","):
            prune = {"target_macs": float(fraction), "round_to": 8}
            share = f"{float(fraction):.0%} of the MACs"
            pruned = compress(trained, prune=prune)
            both = compress(Trained(name, pruned.model, trained.calibration, trained.images, trained.labels), quantize="int8")
            rows[share] = pruned.model
            rows[f"{share}, int8"] = both.model
        for kind, model in rows.items():
            print(row(trained, kind, model), flush=True)


def compress(trained: Trained, **what: object) -> CompressionResult:
    """Compress with the samples that the step may see."""
    samples = trained.calibration[:CALIBRATION] if "quantize" in what else trained.calibration
    data = load_data(samples, trained.model.inputs)
    return tvmcompress.compress(trained.model, data, calibration_samples=len(samples), **what)  # type: ignore[arg-type]


def row(trained: Trained, kind: str, model: Model) -> str:
    """A line of the table."""
    cells = [trained.name, kind, quality(trained, model), count(count_params(model.module)), count(count_macs(model.module))]
    for target in ("x86", "cortex-m4"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                artifact = tvmcompress.build(model, target, Path(folder) / "build")
            except tvmcompress.UserError:
                cells += ["does not fit", "", ""]
                continue
            check(model, artifact, [trained.images[:4]], f"{trained.name}, {kind}, for {target}")
            inputs = [spec.quantize(trained.images[:1]) for spec in artifact.inputs]
            measured = artifact.measure(inputs)
        if measured.latency is not None:
            cells.append(duration(measured.latency.median_ms))
        else:
            cells += [count(measured.instructions or 0), size(measured.flash_bytes or 0), size(measured.ram_bytes or 0)]
    return "| " + " | ".join(cells) + " |"


def quality(trained: Trained, model: Model) -> str:
    """Accuracy in percent, or the autoencoder's relative error."""
    if trained.labels is not None:
        return f"{trained.accuracy(model):.2f} %"
    wanted = trained.model.run(trained.images)[0]
    error = model.run(trained.images)[0] - wanted
    return f"{np.square(error).sum() / np.square(wanted).sum():.2%} off"


if __name__ == "__main__":
    main()
