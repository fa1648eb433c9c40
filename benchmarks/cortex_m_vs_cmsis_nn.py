"""Executed instructions, flash and arena of the official MLPerf Tiny int8 models, beside CMSIS-NN.

Usage: python benchmarks/cortex_m_vs_cmsis_nn.py [--targets cortex-m4,cortex-m55] [--samples 20] > cortex_m_vs_cmsis_nn.md

The whole integer model, TFLite's rounding, no pruning; every output is compared byte for byte with TFLite's arithmetic on
`--samples` random inputs first. CMSIS-NN's figures were measured once: its recommended wrappers (99f736a) called in sequence by
generated C without an interpreter, arm-none-eabi-gcc 12.2 -Ofast, on M3 and M4 with its inline assembly for requantization;
the same emulators (QEMU, executed instructions, not cycles). Flash is code and constants; the arena of CMSIS-NN includes its
scratch buffers, best plan. Not every board of these cores holds every model; the emulator does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from trained import folder

import tvmcompress
from tvmcompress.measuring.benchmarking import random_samples
from tvmcompress.targets.emulators.artifact import EmulatedArtifact

MODELS = {
    "ic": "ic_resnet8_int8.tflite",
    "kws": "kws_dscnn_int8.tflite",
    "vww": "vww_mobilenetv1_025_96_int8.tflite",
    "ad": "ad_autoencoder_int8.tflite",
}
INSTRUCTIONS = {
    "cortex-m0plus": {"ic": 97_566_470, "kws": 29_003_931, "vww": 86_866_871, "ad": 1_759_248},
    "cortex-m3": {"ic": 40_204_867, "kws": 10_087_284, "vww": 30_632_363, "ad": 941_166},
    "cortex-m4": {"ic": 28_614_545, "kws": 7_419_169, "vww": 23_420_275, "ad": 570_158},
    "cortex-m7": {"ic": 29_930_964, "kws": 7_760_955, "vww": 24_473_958, "ad": 579_481},
    "cortex-m33": {"ic": 29_928_691, "kws": 7_800_755, "vww": 24_532_207, "ad": 579_395},
    "cortex-m55": {"ic": 4_808_001, "kws": 1_784_992, "vww": 6_423_189, "ad": 146_821},
}
CODE = {
    "cortex-m0plus": {"ic": 17_044, "kws": 20_612, "vww": 22_616, "ad": 3_848},
    "cortex-m3": {"ic": 13_564, "kws": 16_900, "vww": 18_368, "ad": 2_208},
    "cortex-m4": {"ic": 19_508, "kws": 23_828, "vww": 25_224, "ad": 4_688},
    "cortex-m55": {"ic": 12_314, "kws": 17_574, "vww": 19_002, "ad": 2_506},
}
CONSTANTS = {"ic": 82_692, "kws": 30_252, "vww": 244_424, "ad": 271_880}
ARENA = {"ic": 49_728, "kws": 16_000, "vww": 55_296, "ad": 768}
ARENA_HELIUM = {**ARENA, "kws": 20_464}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", default=",".join(INSTRUCTIONS))
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    print("# Cortex-M beside CMSIS-NN", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| core | model | instructions | of CMSIS-NN's | flash, bytes | of CMSIS-NN's | arena, bytes | CMSIS-NN's |")
    print("|---|---|---|---|---|---|---|---|")
    for target in options.targets.split(","):
        ratios = []
        for name, file in MODELS.items():
            line, ratio = row(target, name, folder() / "models" / file, options.samples)
            ratios.append(ratio)
            print(line, flush=True)
        print(f"| {target} | geometric mean | | {np.exp(np.log(ratios).mean()):.3f} | | | | |", flush=True)


def row(target: str, name: str, path: Path, samples: int) -> tuple[str, float]:
    """A line of the table, and the ratio of instructions."""
    model = tvmcompress.load(path)
    inputs = random_samples(model, samples)
    with tempfile.TemporaryDirectory() as scratch:
        artifact = tvmcompress.build(model, target, Path(scratch) / "build", check_memory=False)
        assert isinstance(artifact, EmulatedArtifact)
        for wanted, got in zip(model.run(*inputs), artifact.run(inputs), strict=True):
            assert np.array_equal(got.reshape(wanted.shape), wanted), f"{name} for {target} gives other bytes"
        instructions = artifact.measure([value[:1] for value in inputs]).instructions or 0
        info = artifact.info
    flash = info.code_bytes + info.constant_bytes
    helium = target == "cortex-m55"
    code = CODE.get(target, CODE["cortex-m4"])[name]
    ratio = instructions / INSTRUCTIONS[target][name]
    arena = (ARENA_HELIUM if helium else ARENA)[name]
    cells = [
        *(target, name, f"{instructions:,}", f"{ratio:.3f}", f"{flash:,}", f"{flash / (CONSTANTS[name] + code):.3f}"),
        *(f"{info.arena_bytes:,}", f"{arena:,}"),
    ]
    return "| " + " | ".join(cells) + " |", ratio


if __name__ == "__main__":
    main()
