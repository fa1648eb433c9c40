"""What repairs of a quantized model are worth: accuracy and noise with each and with combinations, and how long they take.

    python benchmarks/quantization_repair.py [ic resnet20 kws vww] [--samples 200] [--schemes int8 int8-tensor int4 w4a4]
        [--repairs none bias gptq+bias ...] [--output table.md]

Every way calibrates on the same samples, none of which is evaluated, by the least squared error (observer mse), and is
evaluated as the integer program, byte for byte what targets run. A table for each scheme gives, for each model, percent
right, in brackets how many of the answers are others than the float model's, and the power of the float model's outputs over
that of the difference in dB; at the end the seconds of processor time of the whole pipeline, from the float model to the
integer program.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trained

from tvmcompress import compress
from tvmcompress.data.dataset import Dataset, load_data
from tvmcompress.model import Model

MODELS = ("ic", "resnet20", "kws", "vww")
_FEW = ("none", "equalize", "bias", "equalize+bias")
SCHEMES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "int8": ("int8, weights per channel", {"precision": "int8"}, (*_FEW, "gptq", "gptq+bias")),
    "int8-tensor": ("int8, one scale a weight tensor", {"precision": "int8", "weights": "per_tensor"}, _FEW),
    "int4": (
        "int4 weights, one scale a channel",
        {"precision": "int4"},
        ("none", "bias", "gptq", "gptq+bias", "adaround", "adaround+bias"),
    ),
    "w4a4": (
        "int4 weights, activations of 4 bits",
        {"precision": "int4", "activation_bits": 4},
        ("none", "gptq", "adaround", "brecq", "gptq+brecq"),
    ),
    "int4-32": ("int4 weights, groups of 32 input channels", {"precision": "int4", "group_size": 32}, ("none", "gptq")),
}
"""By name: what it is, fields of the recipe, and the repairs that are tried."""

_BATCH = 50


@dataclass(frozen=True)
class Result:
    """What one way made of a model.

    Attributes:
        logits: Outputs, one row an image.
        seconds: Processor time from the float model to the integer program, one thread.
    """

    logits: np.ndarray
    seconds: float


def by_model(model: Model, images: np.ndarray) -> np.ndarray:
    """What a model means, in batches."""
    parts = [model.run(images[start : start + _BATCH])[0] for start in range(0, len(images), _BATCH)]
    return np.concatenate(parts)


def quantized(subject: trained.Trained, data: Dataset, scheme: str, repair: str, observer: str) -> Result:
    """A model quantized and repaired."""
    names = [] if repair == "none" else repair.split("+")
    start = time.process_time()
    made = compress(subject.model, data, quantize={**SCHEMES[scheme][1], "observer": observer, "repair": names}).model
    seconds = time.process_time() - start
    return Result(by_model(made, subject.images), seconds)


def table(results: dict[str, dict[str, Result]], plain: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> str:
    """Markdown: one row a repair, one column a model."""
    names = list(results)
    first = " | ".join(f"{100 * float((plain[name].argmax(-1) == labels[name]).mean()):.2f}" for name in names)
    lines = [
        "| percent right (answers other than fp32's), dB | " + " | ".join(names) + " | seconds |",
        "|---|" + "---|" * (len(names) + 1),
        f"| fp32 | {first} |  |",
    ]
    for repair in dict.fromkeys(repair for found in results.values() for repair in found):
        cells = [_cell(results[name][repair], plain[name], labels[name]) for name in names]
        seconds = [results[name][repair].seconds for name in names]
        lines.append(f"| {repair.replace('+', ', ')} | " + " | ".join(cells) + f" | {min(seconds):.1f} to {max(seconds):.1f} |")
    return "\n".join(lines)


def _cell(result: Result, plain: np.ndarray, truth: np.ndarray) -> str:
    top = result.logits.argmax(-1)
    noise = float(np.square(result.logits - plain, dtype=np.float64).sum())
    ratio = 10 * np.log10(float(np.square(plain, dtype=np.float64).sum()) / max(noise, 1e-30))
    return f"{100 * float((top == truth).mean()):.2f} ({int((top != plain.argmax(-1)).sum())}), {ratio:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--samples", type=int, default=200, help="samples to calibrate on")
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=list(SCHEMES))
    parser.add_argument("--repairs", nargs="+", help="names joined by +, or none; by default what suits each scheme")
    parser.add_argument("--observer", default="mse")
    parser.add_argument("--output", type=Path, help="file for the tables")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(MODELS)}")
    subjects = {name: trained.load(name, options.samples) for name in options.models}
    plain = {name: by_model(subject.model, subject.images) for name, subject in subjects.items()}
    labels = {name: np.asarray(subject.labels) for name, subject in subjects.items()}
    text = []
    for scheme in options.schemes:
        results: dict[str, dict[str, Result]] = {}
        for name, subject in subjects.items():
            data = load_data(subject.calibration, subject.model.inputs)
            results[name] = {}
            for repair in options.repairs or SCHEMES[scheme][2]:
                found = results[name][repair] = quantized(subject, data, scheme, repair, options.observer)
                print(f"{scheme} {name} {repair}: {_cell(found, plain[name], labels[name])}, {found.seconds:.1f} s", flush=True)
        text.append(f"{SCHEMES[scheme][0]}:\n\n{table(results, plain, labels)}")
    print("\n\n".join(text))
    if options.output is not None:
        options.output.write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
