"""Accuracy of int8: ours, ONNX Runtime's static quantization, NNCF's, and the official TFLite models, compared pairwise.

    python benchmarks/quantization_vs_others.py [ic resnet20 kws vww ...] [--subsets 6] [--nncf /tmp/nncf/bin/python]
        [--more] [--answers folder] [--output table.md]

Every way calibrates on the same samples, none of which is evaluated, and answers the same images; this is repeated with
several random calibration sets (200 of the training images for CIFAR-10; 100 of the 500 for keywords and persons, the other
400 being evaluated), since one set says little: a table gives means over the sets. ONNX Runtime computes its QDQ model
operator by operator: its fused x86 kernels saturate sums of 16 bits on machines without VNNI, which is another matter than
how well a model is quantized. Ours is the integer program, as it runs on every target; "ours" alone is what
`tvmcompress compress --quantize int8` does without further options.

NNCF needs an environment of its own, since it pins packages that we use too:

    python -m venv /tmp/nncf && /tmp/nncf/bin/pip install nncf openvino

OpenVINO runs its models in its own int8 kernels, exact on machines with VNNI (`grep -c avx512_vnni /proc/cpuinfo`).
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import trained
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

import tvmcompress
from tvmcompress import Model
from tvmcompress.evaluation.accuracy import as_runner
from tvmcompress.exporting import export_onnx
from tvmcompress.passes import LowerQDQ, dequantize_output, get_io_quantization, quantize_input

TWIN = "kws twin"
"""The float counterpart of the official int8 keyword model, which comes from another training run than the float one."""

MODELS = ("ic", "resnet20", "kws", TWIN, "vww")
REQUIRED = ("ic", "resnet20", "kws", "vww")
"""Models over which the loss of accuracy is averaged."""

OURS = "ours"
MORE = {
    "ours, minmax": {"observer": "minmax"},
    "ours, percentile": {"observer": "percentile"},
    "ours, biases corrected": {"repair": ("bias",)},
    "ours, equalized, biases corrected": {"repair": ("equalize", "bias")},
    "ours, powers of two": {"power_of_two": True},
    "ours, int16x8": {"precision": "int16x8"},
    "ours, int4": {"precision": "int4"},
    "ours, int4, preset small": {"preset": "small"},
}
"""Other settings of ours, as tables of a recipe: with --more."""

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


@dataclass(frozen=True)
class Round:
    """All ways with one calibration set.

    Attributes:
        labels: int (images,).
        answers: By way.
    """

    labels: np.ndarray
    answers: dict[str, Answer]

    def right(self, way: str) -> np.ndarray:
        """Which images a way classifies right."""
        return self.answers[way].logits.argmax(-1) == self.labels

    def loss(self, way: str) -> float:
        """Points of accuracy that a way loses against the float model."""
        return 100 * float(self.right("fp32").mean() - self.right(way).mean())

    def others(self, way: str) -> int:
        """How many of its answers are others than the float model's."""
        return int((self.answers[way].logits.argmax(-1) != self.answers["fp32"].logits.argmax(-1)).sum())

    def ratio(self, way: str) -> float:
        """Power of the float model's outputs over that of the difference, in dB."""
        plain = self.answers["fp32"].logits.astype(np.float64)
        noise = np.square(self.answers[way].logits - plain).sum()
        return float(10 * np.log10(np.square(plain).sum() / max(noise, 1e-30)))


def load(name: str, seed: int) -> tuple[trained.Trained, Path]:
    """A model with a calibration set and the images to evaluate, and its ONNX file."""
    models = trained.folder() / "models"
    own = name in ("ic", "resnet20")
    subject = trained.load("kws" if name == TWIN else name, 200 if own else 100, seed, apart=100)
    if name != TWIN:
        return subject, models / trained.FILES[name]
    path = models / "kws_dscnn_int8twin_fp32.onnx"
    return replace(subject, name=TWIN, model=tvmcompress.load(path)), path


def by_onnxruntime(path: Path, images: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of images, operator by operator."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


def by_us(model: Model, images: np.ndarray) -> np.ndarray:
    """What a model means, in batches."""
    run = as_runner(model)
    return np.concatenate([run([images[start : start + _BATCH]])[0] for start in range(0, len(images), _BATCH)])


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


def we_quantize(subject: trained.Trained, options: Mapping[str, Any]) -> tuple[tvmcompress.CompressionResult, float]:
    """Our quantization, and seconds."""
    start = time.perf_counter()
    result = tvmcompress.compress(subject.model, subject.calibration, quantize=options or "int8")
    return result, time.perf_counter() - start


def official(name: str, images: np.ndarray) -> np.ndarray | None:
    """The official int8 TFLite model's answers, bit for bit those of TFLite's reference kernels."""
    if name not in _OFFICIAL:
        return None
    model = tvmcompress.load(trained.folder() / "models" / f"{_OFFICIAL[name]}.tflite")
    io = get_io_quantization(model.module)
    return dequantize_output(by_us(model, quantize_input(images, io.inputs[0])), io.outputs[0])


def nncf_answers(
    python: Path, path: Path, subjects: Sequence[trained.Trained], folder: Path
) -> tuple[list[dict[str, Answer]], str]:
    """NNCF's answers for every calibration set, run in its own environment; and the versions."""
    arrays: dict[str, Any] = {}
    for number, subject in enumerate(subjects):
        arrays |= {f"calibration{number}": subject.calibration, f"images{number}": subject.images}
    np.savez(folder / "samples.npz", **arrays)
    worker = Path(__file__).with_name("nncf_worker.py")
    command = [str(python), str(worker), str(path), str(folder / "samples.npz"), str(folder / "answers.npz")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = np.load(folder / "answers.npz")
    rounds = [
        {"NNCF": Answer(found[f"logits{number}"], float(found[f"seconds{number}"]))} for number in range(len(subjects))
    ]
    return rounds, str(found["versions"])


def answers(name: str, subject: trained.Trained, path: Path, more: bool) -> dict[str, Answer]:
    """All ways but NNCF's with one calibration set, by name; with `more` also other settings, exported and imported models."""
    images = subject.images
    found = {"fp32": Answer(by_onnxruntime(path, images))}
    with tempfile.TemporaryDirectory() as folder:
        for way, options in {OURS: {}, **(MORE if more else {})}.items():
            result, seconds = we_quantize(subject, options)
            found[way] = Answer(by_us(result.model, images), seconds)
            if more and way == OURS and result.qdq_model is not None:
                export_onnx(result.qdq_model, Path(folder) / "ours.onnx")
                found["ours, exported, run by ONNX Runtime"] = Answer(by_onnxruntime(Path(folder) / "ours.onnx", images))
        for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile)[: 2 if more else 1]:
            output = Path(folder) / f"{method.name}.onnx"
            seconds = onnxruntime_quantizes(path, subject, method, output)
            found[f"ONNX Runtime, {method.name}"] = Answer(by_onnxruntime(output, images), seconds)
            if more:
                imported = tvmcompress.load(output).apply(LowerQDQ())
                found[f"ONNX Runtime, {method.name}, imported as integers"] = Answer(by_us(imported, images))
        given = official(name, images)
        if given is not None:
            found["official TFLite"] = Answer(given)
    return found


def _keep(place: Path, answers_: Mapping[str, Answer]) -> None:
    """Write answers to a file, for another run to go on with."""
    arrays = {f"logits {way}": answer.logits for way, answer in answers_.items()}
    arrays |= {f"seconds {way}": np.array(a.seconds) for way, a in answers_.items() if a.seconds is not None}
    np.savez(place, **arrays)  # type: ignore[arg-type]


def _kept(place: Path) -> dict[str, Answer]:
    if not place.exists():
        return {}
    file = np.load(place)
    ways = [name.removeprefix("logits ") for name in file.files if name.startswith("logits ")]
    return {
        way: Answer(file[f"logits {way}"], float(file[f"seconds {way}"]) if f"seconds {way}" in file.files else None)
        for way in ways
    }


def table(results: Mapping[str, Sequence[Round]]) -> list[str]:
    """Markdown: one row a way, one column a model: points lost, mean over the calibration sets and spread; others; dB."""
    lines = [
        "| points lost, mean ± deviation (worst); other answers; dB | " + " | ".join(results) + " | mean | seconds |",
        "|---|" + "---|" * (len(results) + 2),
    ]
    right = [f"{100 * np.mean([r.right('fp32').mean() for r in rounds]):.2f} % right" for rounds in results.values()]
    lines.append("| fp32 | " + " | ".join(right) + " | | |")
    ways = dict.fromkeys(way for rounds in results.values() for r in rounds for way in r.answers if way != "fp32")
    for way in ways:
        having = {name: [r for r in rounds if way in r.answers] for name, rounds in results.items()}
        cells = [_cell(way, rounds) for rounds in having.values()]
        whole = [np.mean([r.loss(way) for r in having[name]]) for name in REQUIRED if having.get(name)]
        mean = f"{np.mean(whole):.2f}" if len(whole) == len(REQUIRED) else ""
        seconds = [s for rounds in having.values() for r in rounds if (s := r.answers[way].seconds) is not None]
        span = f"{min(seconds):.1f} to {max(seconds):.1f}" if seconds else ""
        lines.append(f"| {way} | " + " | ".join(cells) + f" | {mean} | {span} |")
    return lines


def _cell(way: str, rounds: Sequence[Round]) -> str:
    if not rounds:
        return ""
    lost = [r.loss(way) for r in rounds]
    others, ratio = np.mean([r.others(way) for r in rounds]), np.mean([r.ratio(way) for r in rounds])
    spread = f" ± {np.std(lost):.2f} ({max(lost):.2f})" if len(lost) > 1 else ""
    return f"{np.mean(lost):.2f}{spread}; {others:.1f}; {ratio:.1f}"


def pairs(results: Mapping[str, Sequence[Round]]) -> list[str]:
    """Markdown: ours against each other way on the same images: right where the other is wrong, and the reverse."""
    theirs = dict.fromkeys(
        way
        for rounds in results.values()
        for r in rounds
        for way in r.answers
        if way.startswith(("ONNX Runtime", "NNCF", "official"))
    )
    lines = [
        "| ours only right : theirs only right, a set | " + " | ".join(results) + " | ours minus theirs, points |",
        "|---|" + "---|" * (len(results) + 1),
    ]
    for way in theirs:
        cells, gains = [], []
        for rounds in results.values():
            having = [r for r in rounds if way in r.answers]
            ours = [int((r.right(OURS) & ~r.right(way)).sum()) for r in having]
            other = [int((r.right(way) & ~r.right(OURS)).sum()) for r in having]
            cells.append(f"{np.mean(ours):.1f} : {np.mean(other):.1f}" if having else "")
            gains += [100 * (a - b) / len(r.labels) for a, b, r in zip(ours, other, having)]
        error = np.std(gains) / np.sqrt(len(gains))
        lines.append(f"| {way} | " + " | ".join(cells) + f" | {np.mean(gains):+.2f} ± {error:.2f} |")
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--subsets", type=int, default=6, help="calibration sets")
    parser.add_argument("--more", action="store_true", help="also other settings of ours and others, and exchanged models")
    parser.add_argument("--answers", type=Path, help="folder that keeps answers; what is there is not computed again")
    parser.add_argument("--nncf", type=Path, help="a Python that has NNCF and OpenVINO")
    parser.add_argument("--output", type=Path, help="file for the tables")
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in MODELS]
    if unknown:
        parser.error(f"{unknown[0]} is none of {', '.join(MODELS)}")
    logging.getLogger().setLevel(logging.ERROR)  # ONNX Runtime advises on its own defaults
    results: dict[str, list[Round]] = {}
    versions = f"ONNX Runtime {ort.__version__}"
    scratch = tempfile.mkdtemp()
    for name in options.models:
        loaded = [load(name, seed + 1) for seed in range(options.subsets)]
        path = loaded[0][1]
        files = [(options.answers or Path(scratch)) / f"{name}{number}.npz" for number in range(len(loaded))]
        for file, (subject, _) in zip(files, loaded):
            known = _kept(file)
            if OURS not in known or (options.more and not set(MORE) <= set(known)):
                _keep(file, {**known, **answers(name, subject, path, options.more)})
            print(f"{name}: {len(subject.calibration)} samples to calibrate on", flush=True)
        if options.nncf is not None and any("NNCF" not in _kept(file) for file in files):
            with tempfile.TemporaryDirectory() as folder:
                more, nncf = nncf_answers(options.nncf, path, [subject for subject, _ in loaded], Path(folder))
            for file, extra in zip(files, more):
                _keep(file, {**_kept(file), **extra})
            versions = f"ONNX Runtime {ort.__version__}, {nncf}"
        rounds = [Round(subject.labels, _kept(file)) for file, (subject, _) in zip(files, loaded)]  # type: ignore[arg-type]
        results[name] = rounds
        counts = ", ".join(f"{other} {len(found[0].labels)}" for other, found in results.items())
        note = f"{options.subsets} calibration sets. Evaluated images: {counts}. {versions}."
        text = "\n".join([*table(results), "", *pairs(results), "", note])
        if options.output is not None:
            options.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
