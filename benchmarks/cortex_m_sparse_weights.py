"""What --sparse-weights saves in flash on trained models of pattern 2:4, and what it costs.

Usage: python benchmarks/cortex_m_sparse_weights.py [--models ad,ic] [--targets cortex-m4] > cortex_m_sparse_weights.md

The float models are sparsified (two of every four input channels stay), repaired on 200 samples, and quantized to int8 on
the same samples; "dense" and "sparse" are builds of one model, and every output is compared byte for byte with NumPy's
definition of the operators first. Quality is accuracy on data that neither step saw, the autoencoder's the squared error
relative to the original's output. Flash is constants and code; bytes; executed instructions under QEMU. "C" is C source
(--emit c), which has no kernels of its own: each layer adds up what is stored.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from real_models import quality
from trained import Trained, load

import tvmcompress
from tvmcompress.data.dataset import load_data
from tvmcompress.measuring.benchmarking import check
from tvmcompress.model import Model
from tvmcompress.recipe.quantize import QuantizeRecipe
from tvmcompress.recipe.recipe import Recipe, SparsifyRecipe

SAMPLES = 200
BUILDS = {
    "dense": {},
    "sparse": {"sparse_weights": True},
    "dense, C": {"emit": "c"},
    "sparse, C": {"emit": "c", "sparse_weights": True},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="ad,ic")
    parser.add_argument("--targets", default="cortex-m4")
    options = parser.parse_args()
    print("# Two of every four weights stored", "", (__doc__ or "").split("\n\n")[-1].strip(), "", sep="\n")
    built: dict[str, tuple[Trained, Model]] = {}
    print("| model | original | int8 | 2:4, int8 |")
    print("|---|---|---|---|")
    for name in options.models.split(","):
        trained = load(name, SAMPLES)
        data = load_data(trained.calibration, trained.model.inputs)
        dense = Recipe(quantize=QuantizeRecipe(), calibration_samples=SAMPLES)
        recipe = dense.model_copy(update={"sparsify": SparsifyRecipe(pattern="2:4")})
        models = [tvmcompress.compress(trained.model, data, recipe=plan).model for plan in (dense, recipe)]
        built[name] = trained, models[1]
        print(f"| {name} | {' | '.join(quality(trained, model) for model in (trained.model, *models))} |", flush=True)
    print()
    print("| model | core | | flash | constants | code | arena | instructions |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (trained, model) in built.items():
        for target in options.targets.split(","):
            for label, how in BUILDS.items():
                print(f"| {name} | {target} | {label} | {_row(trained, model, target, how)} |", flush=True)


def _row(trained: Trained, model: Model, target: str, how: dict[str, object]) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        artifact = tvmcompress.build(model, target, Path(scratch) / "build", **how)
        check(model, artifact, [trained.images[:4]], f"{trained.name} for {target}")
        measured = artifact.measure([spec.quantize(trained.images[:1]) for spec in artifact.inputs])
    figures = (measured.flash_bytes, measured.constant_bytes, measured.code_bytes, measured.arena_bytes, measured.instructions)
    return " | ".join(f"{figure or 0:,}" for figure in figures)


if __name__ == "__main__":
    main()
