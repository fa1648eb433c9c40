"""Whether every Cortex-M core gives the bytes that x86 gives, on real inputs.

Usage: python benchmarks/cortex_m_equal_bytes.py [--targets cortex-m4,...] [--samples 20] > cortex_m_equal_bytes.md

The official MLPerf Tiny int8 models on samples that they were not trained on (the autoencoder, ad, on spectra of vibrations).
A cell says on how many of the inputs all output bytes were equal to those of the x86 build and of NumPy's definition of the
operators. "Strips": built with --patch-wise.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from cortex_m_vs_cmsis_nn import MODELS
from trained import folder, load

import tvmcompress
from tvmcompress.targets.registry import list_targets


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    cores = sorted(d.name for d in list_targets() if d.family == "cortex-m" and d.name == d.core)
    parser.add_argument("--targets", default=",".join(cores))
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    targets = [(target, {}) for target in options.targets.split(",")]
    targets += [(target, {"patch_wise": True}) for target, _ in targets if target in ("cortex-m4", "cortex-m55")]
    print("# The same bytes on Cortex-M as on x86", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    print("| core | " + " | ".join(MODELS) + " |")
    print("|---|" + "---|" * len(MODELS))
    with tempfile.TemporaryDirectory() as scratch:
        wanted = {name: _wanted(name, file, options.samples, Path(scratch) / name) for name, file in MODELS.items()}
        for target, how in targets:
            cells = []
            for name, file in MODELS.items():
                inputs, bytes_ = wanted[name]
                model = tvmcompress.load(folder() / "models" / file)
                place = Path(scratch) / f"{name}-{target}-{len(how)}"
                # Not every core here has the flash of every model; the emulator does.
                artifact = tvmcompress.build(model, target, place, check_memory=False, **how)
                got = artifact.run([inputs])[0].reshape(len(inputs), -1)
                cells.append(f"{int((got == bytes_).all(1).sum())} of {len(inputs)}")
            print(f"| {target}{', strips' if how else ''} | " + " | ".join(cells) + " |", flush=True)


def _wanted(name: str, file: str, samples: int, output: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of a model, int8, and its output bytes on x86, which must be those of NumPy's definition."""
    model = tvmcompress.load(folder() / "models" / file)
    artifact = tvmcompress.build(model, "x86", output)
    inputs = artifact.inputs[0].quantize(load(name, 200).images[:samples])
    outputs = artifact.run([inputs])[0].reshape(len(inputs), -1)
    assert np.array_equal(outputs, model.run(inputs)[0].reshape(len(inputs), -1)), f"{name} gives other bytes on x86"
    return inputs, outputs


if __name__ == "__main__":
    main()
