"""What --patch-wise saves in RAM on the official MLPerf Tiny int8 models, and what it costs.

Usage: python benchmarks/cortex_m_patch_wise.py [--targets cortex-m4,cortex-m55] > cortex_m_patch_wise.md

The arena in bytes, executed instructions under QEMU, bytes of code. Every output is compared byte for byte with NumPy's
definition of the operators first. "As it is" spends memory that is free anyway on speed; "strips" does not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from cortex_m_vs_cmsis_nn import MODELS
from trained import folder

import tvmcompress
from tvmcompress.measuring.benchmarking import random_samples
from tvmcompress.targets.emulators.artifact import EmulatedArtifact


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", default="cortex-m4,cortex-m55")
    options = parser.parse_args()
    print("# First layers patch by patch", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| core | model | | arena | instructions | code | in patches |")
    print("|---|---|---|---|---|---|---|")
    for target in options.targets.split(","):
        for name in ("vww", "ic"):
            for label, how in (("as it is", {}), ("strips", {"patch_wise": True})):
                print(f"| {target} | {name} | {label} | {_row(target, MODELS[name], how)} |", flush=True)


def _row(target: str, file: str, how: dict[str, bool]) -> str:
    model = tvmcompress.load(folder() / "models" / file)
    inputs = random_samples(model, 4)
    with tempfile.TemporaryDirectory() as scratch:
        artifact = tvmcompress.build(model, target, Path(scratch) / "build", **how)
        assert isinstance(artifact, EmulatedArtifact)
        for wanted, got in zip(model.run(*inputs), artifact.run(inputs), strict=True):
            assert np.array_equal(got.reshape(wanted.shape), wanted), f"{file} for {target} gives other bytes"
        measured = artifact.measure([value[:1] for value in inputs])
    patches = measured.patches
    cut = ""
    if patches is not None:
        cut = f"{patches.layers} layers in {patches.strips}, {patches.extra_macs / patches.macs:.1%} more MACs"
    return f"{measured.arena_bytes:,} | {measured.instructions:,} | {measured.code_bytes:,} | {cut}"


if __name__ == "__main__":
    main()
