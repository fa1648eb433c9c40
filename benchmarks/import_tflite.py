"""Official int8 TFLite models, imported: are the bytes those of TFLite's reference kernels, and on how many inputs?

    python benchmarks/import_tflite.py [--random 200] [--limit 500]

Inputs are the samples that there are of each model's task, random integers, and the extremes (all lowest, all highest, a
chessboard of both). The reference is LiteRT with BUILTIN_REF; its optimized kernels deviate from its reference ones.
Fully connected layers are rounded once by default, as LiteRT's reference kernel does it; TFLite up to 2.14, TFLite Micro and
CMSIS-NN round them twice (`dense_rounding="double"`): both are compared.
"""

from __future__ import annotations

import argparse

import ai_edge_litert
import numpy as np
import trained
from ai_edge_litert import interpreter as litert

import tvmcompress
from tvmcompress.evaluation.accuracy import as_runner
from tvmcompress.importing.tflite import load_tflite
from tvmcompress.passes import get_io_quantization, quantize_input

FILES = {"ic": "ic_resnet8", "kws": "kws_dscnn", "vww": "vww_mobilenetv1_025_96", "ad": "ad_autoencoder"}
_BATCH = 50


def inputs(name: str, model: tvmcompress.Model, random: int, limit: int) -> np.ndarray:
    """int8 inputs, samples first."""
    shape = model.inputs[0].shape[1:]
    rng = np.random.default_rng(0)
    real = trained.load(name, 1, apart=0).images[:limit]
    integers = quantize_input(real, get_io_quantization(model.module).inputs[0])
    places = np.indices(shape).sum(0) % 2
    extremes = np.stack([np.full(shape, -128), np.full(shape, 127), np.where(places, 127, -128), np.where(places, -128, 127)])
    noise = rng.integers(-128, 128, (random, *shape))
    return np.concatenate([integers.reshape(-1, *shape), extremes, noise]).astype(np.int8)


def reference(path: str, samples: np.ndarray) -> np.ndarray:
    """What LiteRT's reference kernels compute, sample by sample."""
    runner = litert.Interpreter(path, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF)
    runner.allocate_tensors()
    given, made = runner.get_input_details()[0]["index"], runner.get_output_details()[0]["index"]
    outputs = []
    for sample in samples:
        runner.set_tensor(given, sample[None])
        runner.invoke()
        outputs.append(runner.get_tensor(made).copy())
    return np.concatenate(outputs)


def outputs(model: tvmcompress.Model, samples: np.ndarray) -> np.ndarray:
    """What a model makes of samples, one row each."""
    run = as_runner(model)
    parts = [run([samples[start : start + _BATCH]])[0] for start in range(0, len(samples), _BATCH)]
    return np.concatenate(parts).reshape(len(samples), -1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--random", type=int, default=200, help="random inputs a model")
    parser.add_argument("--limit", type=int, default=500, help="real samples a model, at most")
    options = parser.parse_args()
    print("| model | inputs tried | output bytes | fully connected rounded once: inputs that differ | twice |")
    print("|---|---|---|---|---|")
    for name, file in FILES.items():
        path = trained.folder() / "models" / f"{file}_int8.tflite"
        models = [load_tflite(path, dense_rounding=rounding) for rounding in ("single", "double")]
        samples = inputs(name, models[0], options.random, options.limit)
        wanted = reference(str(path), samples).reshape(len(samples), -1)
        cells = [str(int((outputs(model, samples) != wanted).any(1).sum())) for model in models]
        print(f"| {name} | {len(samples)} | {wanted.size:,} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nLiteRT {ai_edge_litert.__version__}, BUILTIN_REF.")


if __name__ == "__main__":
    main()
