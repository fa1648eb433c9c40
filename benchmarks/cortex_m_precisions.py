"""What the precisions cost and save on Cortex-M, the same model in each.

Usage: python benchmarks/cortex_m_precisions.py [--models ic] [--targets cortex-m4] > cortex_m_precisions.md

The float models are quantized from 100 samples, int4 in one group a channel and repaired (gptq) as by default. Every build is
run on 8 samples first, and gives the bytes of NumPy's definition of the operators. Instructions are executed ones under QEMU,
which are exact and are not time; flash is constants and code, bytes. Factors are over int8 on the same core.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from trained import load

import tvmcompress
from tvmcompress.data.dataset import load_data
from tvmcompress.measuring.benchmarking import benchmark

SAMPLES = 100
PRECISIONS = ("int8", "int16x8", "int4")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="ic")
    parser.add_argument("--targets", default="cortex-m4")
    options = parser.parse_args()
    print("# Precisions on Cortex-M", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| model | core | precision | instructions | of int8 | flash | of int8 | arena |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        trained = load(name, SAMPLES)
        data = load_data(trained.calibration, trained.model.inputs)
        models = {p: tvmcompress.compress(trained.model, data, quantize=p).model for p in PRECISIONS}
        with tempfile.TemporaryDirectory() as scratch:
            records = benchmark(models, options.targets.split(","), samples=data, output=Path(scratch))
        first = {record.target: record.measurement for record in records if record.model == "int8"}
        for record in records:
            measured, base = record.measurement, first[record.target]
            if measured is None or base is None or not measured.instructions or not base.instructions:
                print(f"| {name} | {record.target} | {record.model} | {record.problem} | | | | |", flush=True)
                continue
            flash, of = measured.flash_bytes or 0, base.flash_bytes or 1
            times = measured.instructions / base.instructions
            figures = f"{measured.instructions:,} | {times:.2f} | {flash:,} | {flash / of:.2f} | {measured.arena_bytes:,}"
            print(f"| {name} | {record.target} | {record.model} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
