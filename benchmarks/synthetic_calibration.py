"""What calibration without data costs: samples made from the statistics of batch normalizations, beside real ones and noise.

    python benchmarks/synthetic_calibration.py [digits ic resnet20] [--samples 64] [--output table.md]

The files of ic and resnet20 have their normalizations folded in. What these held, means and deviations of the layers' results
over the training data, is measured on the 8068 training images and recorded in the model as folding records it. Noise is
normal, with the mean and the deviation of the real samples. Accuracy is that of the integer programs on images that nothing is
calibrated on; in dB the power of the float model's outputs over that of the difference.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import trained

import tvmcompress
from tvmcompress.data.dataset import load_data
from tvmcompress.model import Model
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import Interpreter
from tvmcompress.passes.graph.normalization_statistics import Moments, record_statistics
from tvmcompress.passes.graph.view import GraphView

MODELS = ("digits", "ic", "resnet20")
_BATCH = 64
_EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def with_statistics(model: Model, images: np.ndarray) -> Model:
    """A model that knows the moments of its convolutions' results behind the bias on images."""
    graph = GraphView(model.module)
    results: dict[str, str] = {}
    for var, call in graph.values.items():
        behind = graph.sole_reader(var)
        if isinstance(call, relax.Call) and call.op.name == "relax.nn.conv2d" and behind and behind[1].op.name == "relax.add":
            results[behind[0].name] = call.args[1].name
    sums: dict[str, np.ndarray] = {}

    def tap(name: str, value: np.ndarray) -> None:
        if name in results:
            flat = np.moveaxis(value, 1, 0).reshape(value.shape[1], -1).astype(np.float64)
            found = np.stack([np.full(len(flat), flat.shape[1]), flat.sum(1), np.square(flat).sum(1)])
            sums[name] = sums[name] + found if name in sums else found

    run = Interpreter(model.module)
    for start in range(0, len(images), _BATCH):
        run([images[start : start + _BATCH]], tap)
    moments = {}
    for name, (count, total, squares) in sums.items():
        mean = total / count
        moments[results[name]] = Moments(mean, np.sqrt(np.maximum(squares / count - np.square(mean), 0.0)))
    return replace(model, module=record_statistics(model.module, moments))


def subject(name: str, samples: int) -> trained.Trained:
    """A model that has statistics, with data."""
    if name != "digits":
        found = trained.load(name, 8068)
        known = with_statistics(found.model, found.calibration)
        return replace(found, model=known, calibration=found.calibration[:samples])
    model = tvmcompress.load(_EXAMPLES / "digits.onnx")
    calibration, test = (load_data(_EXAMPLES / f"digits_{part}.npz", model.inputs) for part in ("calib", "test"))
    return trained.Trained(name, model, calibration.first(samples).inputs()[0], test.inputs()[0], test.labels)


def rows(name: str, samples: int) -> list[str]:
    """A row of Markdown for each kind of samples."""
    found = subject(name, samples)
    real = found.calibration
    plain = found.model.run(found.images)[0]
    start = time.process_time()
    synthetic = tvmcompress.synthesize(found.model, samples)
    seconds = time.process_time() - start
    noise = np.random.default_rng(0).normal(real.mean(), real.std(), real.shape).astype(np.float32)
    lines = []
    for kind, data in (("real", real), ("synthetic", synthetic), ("noise", noise)):
        cells = []
        for precision in ("int8", "int4"):
            model = tvmcompress.compress(found.model, data, quantize=precision).model
            outputs = model.run(found.images)[0]
            error = np.square(outputs - plain, dtype=np.float64).sum()
            ratio = 10 * np.log10(np.square(plain, dtype=np.float64).sum() / max(float(error), 1e-30))
            cells.append(f"{100 * float((outputs.argmax(-1) == found.labels).mean()):.2f}, {ratio:.1f} dB")
        took = f"{seconds:.0f}" if kind == "synthetic" else ""
        accuracy = 100 * float((plain.argmax(-1) == found.labels).mean())
        lines.append(f"| {name} | {accuracy:.2f} | {kind} | {' | '.join(cells)} | {took} |")
        print(lines[-1], flush=True)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--samples", type=int, default=64, help="samples to calibrate on")
    parser.add_argument("--output", type=Path, help="file for the table")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(MODELS)}")
    text = ["| model | fp32 | samples | int8 | int4 weights, gptq | seconds to make them |", "|---|---|---|---|---|---|"]
    for name in options.models:
        text += rows(name, options.samples)
    if options.output is not None:
        options.output.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
