"""Official int8 TFLite models, imported: are the bytes those of TFLite's reference kernels, and on how many inputs?

    python benchmarks/import_tflite.py [--random 200] [--limit 500] [--files 40] [--only operators]

Inputs are the samples that there are of each model's task, random integers, and the extremes (all lowest, all highest, a
chessboard of both). The reference is LiteRT with BUILTIN_REF; its optimized kernels deviate from its reference ones.
Fully connected layers are rounded once by default, as LiteRT's reference kernel does it; TFLite up to 2.14, TFLite Micro and
CMSIS-NN round them twice (`dense_rounding="double"`): both are compared.

The second table counts, for every kind of operator, drawn files of that operator alone: right (the bytes of the reference
kernels; a step beside them where there is no exact form; float to 1e-4), refused with a reason, wrong, or ended by a traceback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

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


def operators(count: int) -> None:
    """Print the table of operators."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.tvmcompress.importing import tflite_operators as kinds

    tables = [
        ("int8", kinds.INT8, 0), ("int8, near", kinds.NEAR, 1), ("int16", kinds.INT16, 0),
        ("int16, near", kinds.INT16_NEAR, 4), ("float32", kinds.FLOAT, None),
    ]  # fmt: skip
    print("| activations | operator | right | refused with reason | wrong | crash | LiteRT refuses |")
    print("|---|---|---|---|---|---|---|")
    totals: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        for title, table, steps in tables:
            for kind, make in table.items():
                dtype, reference = title.split(",")[0], kind not in kinds.NO_REFERENCE
                made = (make(kinds.Maker(kinds.RandomDraw(seed), dtype)) for seed in range(count))
                found = Counter(outcome(path, one, steps, reference) for one in made)
                totals.setdefault(title, Counter()).update(found)
                row(title, kind, found)
    for title, found in totals.items():
        row(title, "**all**", found)


def row(title: str, kind: str, found: Counter[str]) -> None:
    """Print one row of the table of operators."""
    cells = [str(found[name]) for name in ("right", "refused", "wrong", "crash", "not comparable")]
    print(f"| {title} | {kind} | " + " | ".join(cells) + " |", flush=True)


def outcome(path: Path, made: Any, steps: int | None, reference: bool) -> str:
    """What becomes of one file."""
    from tests.tvmcompress.importing.tflite_files import litert as run

    try:
        wanted = run(made.content, *made.inputs, reference=reference)
    except (RuntimeError, ValueError):
        return "not comparable"
    path.write_bytes(made.content)
    try:
        found = load_tflite(path).run(*made.inputs)
    except tvmcompress.UserError:
        return "refused"
    except Exception:  # what is counted here
        return "crash"
    if [(f.shape, f.dtype) for f in found] != [(w.shape, w.dtype) for w in wanted]:
        return "wrong"
    if steps is None:
        same = all(np.allclose(f, w, rtol=1e-4, atol=1e-4) for f, w in zip(found, wanted))
    else:
        same = all(np.abs(f.astype(int) - w).max() <= steps for f, w in zip(found, wanted))
    return "right" if same else "wrong"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--random", type=int, default=200, help="random inputs a model")
    parser.add_argument("--limit", type=int, default=500, help="real samples a model, at most")
    parser.add_argument("--files", type=int, default=40, help="drawn files an operator")
    parser.add_argument("--only", choices=["models", "operators"], help="one of the two tables")
    options = parser.parse_args()
    if options.only != "models":
        operators(options.files)
        print()
    if options.only == "operators":
        return
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
