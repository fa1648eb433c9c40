"""Accuracy of int8: ours, ONNX Runtime's static quantization, and the official TFLite models, on the same samples and inputs.

    python benchmarks/quantization_vs_others.py [ic resnet20 kws vww ...] [--samples 200] [--observers minmax percentile]
        [--output table.md]

All are calibrated on the same samples, none of which is evaluated, and evaluated on the same images. ONNX Runtime computes
its QDQ model operator by operator: its fused x86 kernels saturate sums of 16 bits on machines without VNNI, which is
another matter than how well a model is quantized. Ours is the integer program, as it runs on every target. A table gives,
for each model and each way, percent right, in brackets how many of the answers are others than the float model's, and the
power of the float model's outputs over that of the difference in dB.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import trained
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

import tvmcompress
from tvmcompress import Model
from tvmcompress.exporting import export_onnx
from tvmcompress.passes import LowerQDQ, Quantize, calibrate, dequantize_output, get_io_quantization, quantize_input

TWIN = "kws twin"
"""The float counterpart of the official int8 keyword model, which comes from another training run than the float one."""

MODELS = ("ic", "resnet20", "kws", TWIN, "vww")
_OFFICIAL = {"ic": "ic_resnet8_int8", TWIN: "kws_dscnn_int8", "vww": "vww_mobilenetv1_025_96_int8"}
_BATCH = 50


@dataclass(frozen=True)
class Answer:
    """What one way made of the images.

    Attributes:
        logits: Outputs of the model, one row an image.
        seconds: How long calibration and quantization took; None where there was none.
    """

    logits: np.ndarray
    seconds: float | None = None


def load(name: str, samples: int) -> tuple[trained.Trained, Path]:
    """A model with its data, and its ONNX file."""
    models = trained.folder() / "models"
    if name != TWIN:
        return trained.load(name, samples), models / trained.FILES[name]
    path = models / "kws_dscnn_int8twin_fp32.onnx"
    return replace(trained.load("kws", samples), name=TWIN, model=tvmcompress.load(path)), path


def by_onnxruntime(path: Path, images: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of images, operator by operator."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def by_us(model: Model, images: np.ndarray) -> np.ndarray:
    """What a model means, in batches."""
    parts = [model.run(images[start : start + _BATCH])[0] for start in range(0, len(images), _BATCH)]
    return np.concatenate(parts)


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, samples: np.ndarray) -> None:
        self._left = iter([{name: sample[None]} for sample in samples])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def onnxruntime_quantizes(path: Path, subject: trained.Trained, method: CalibrationMethod, output: Path) -> float:
    """ONNX Runtime's static quantization: uint8 activations, int8 weights per channel. Returns seconds."""
    start = time.perf_counter()
    quantize_static(
        str(path),
        str(output),
        _Reader(subject.model.inputs[0].name, subject.calibration),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=method,
    )
    return time.perf_counter() - start


def we_quantize(subject: trained.Trained, observer: str, power_of_two: bool = False) -> tuple[Model, Model, float]:
    """Our quantization: in QDQ form, in integers, and seconds."""
    start = time.perf_counter()
    module = subject.model.module
    ranges = calibrate(module, [[subject.calibration]], observer)
    qdq = subject.model.apply(Quantize(ranges, power_of_two=power_of_two))
    integer = qdq.apply(LowerQDQ())
    return qdq, integer, time.perf_counter() - start


def official(name: str, images: np.ndarray) -> np.ndarray | None:
    """The official int8 TFLite model's answers, bit for bit those of TFLite's reference kernels."""
    if name not in _OFFICIAL:
        return None
    model = tvmcompress.load(trained.folder() / "models" / f"{_OFFICIAL[name]}.tflite")
    io = get_io_quantization(model.module)
    return dequantize_output(by_us(model, quantize_input(images, io.inputs[0])), io.outputs[0])


def answers(name: str, samples: int, observers: Sequence[str], say: Callable[[str], None]) -> dict[str, Answer]:
    """All ways on one model, by name."""
    subject, path = load(name, samples)
    images = subject.images
    say(f"{name}: {len(subject.calibration)} samples to calibrate on, {len(images)} images to evaluate")
    found = {"fp32": Answer(by_onnxruntime(path, images))}
    with tempfile.TemporaryDirectory() as folder:
        for observer in observers:
            qdq, integer, seconds = we_quantize(subject, observer)
            found[f"ours, {observer}"] = Answer(by_us(integer, images), seconds)
            say(f"  ours, {observer}: {seconds:.1f} s")
            if observer == observers[0]:
                export_onnx(qdq, Path(folder) / "ours.onnx")
                again = by_onnxruntime(Path(folder) / "ours.onnx", images)
                found[f"ours, {observer}, exported, run by ONNX Runtime"] = Answer(again)
        integer, seconds = we_quantize(subject, observers[0], power_of_two=True)[1:]
        found[f"ours, {observers[0]}, powers of two"] = Answer(by_us(integer, images), seconds)
        for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile):
            output = Path(folder) / f"{method.name}.onnx"
            seconds = onnxruntime_quantizes(path, subject, method, output)
            found[f"ONNX Runtime, {method.name}"] = Answer(by_onnxruntime(output, images), seconds)
            say(f"  ONNX Runtime, {method.name}: {seconds:.1f} s")
            imported = tvmcompress.load(output).apply(LowerQDQ())
            found[f"ONNX Runtime, {method.name}, imported as integers"] = Answer(by_us(imported, images))
        given = official(name, images)
        if given is not None:
            found["official TFLite"] = Answer(given)
    return found


def table(results: dict[str, dict[str, Answer]], labels: dict[str, np.ndarray]) -> str:
    """Markdown: one row a way, one column a model."""
    names = list(results)
    lines = [
        "| percent right (answers other than fp32's), dB | " + " | ".join(names) + " | seconds to quantize |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for way in dict.fromkeys(way for found in results.values() for way in found):
        given = {name: results[name][way] for name in names if way in results[name]}
        cells = [_cell(given[name], results[name]["fp32"], labels[name]) if name in given else "" for name in names]
        seconds = [answer.seconds for answer in given.values() if answer.seconds is not None]
        span = f"{min(seconds):.1f} to {max(seconds):.1f}" if seconds else ""
        lines.append(f"| {way} | " + " | ".join(cells) + f" | {span} |")
    counts = ", ".join(f"{name} {len(labels[name])}" for name in names)
    lines += ["", f"Evaluated images: {counts}. ONNX Runtime {ort.__version__}, operator by operator."]
    return "\n".join(lines)


def _cell(answer: Answer, plain: Answer, truth: np.ndarray) -> str:
    """Percent right; against the float model the other answers, and its outputs' power over that of the difference."""
    top = answer.logits.argmax(-1)
    right = f"{100 * float((top == truth).mean()):.2f}"
    if answer is plain:
        return right
    noise = float(np.square(answer.logits - plain.logits, dtype=np.float64).sum())
    ratio = 10 * np.log10(float(np.square(plain.logits, dtype=np.float64).sum()) / max(noise, 1e-30))
    return f"{right} ({int((top != plain.logits.argmax(-1)).sum())}), {ratio:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--samples", type=int, default=200, help="samples to calibrate on")
    parser.add_argument("--observers", nargs="+", default=["minmax", "percentile", "mse", "entropy", "moving_average"])
    parser.add_argument("--output", type=Path, help="file for the table")
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(MODELS)}")
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime advises on its own defaults
    results, labels = {}, {}
    for name in options.models:
        results[name] = answers(name, options.samples, options.observers, lambda line: print(line, flush=True))
        truth = load(name, options.samples)[0].labels
        assert truth is not None
        labels[name] = truth
    text = table(results, labels)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
