"""Running a built model on samples, wherever it was built for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import UserError
from ..evaluation.accuracy import Evaluation, evaluate
from ..files.whole_file import whole_file
from ..model import InputSpec, Model, Preprocessing
from ..passes.graph.index_limits import integer_range
from ..passes.layout.converter import layout_name
from ..targets.base import Artifact, TensorSpec
from ..targets.emulators.artifact import EmulatedArtifact
from ..targets.measurement import Measurement
from ..targets.record import Record

_BATCH = 32
"""Samples of one start of an emulator: its time limit is for so many."""


class Prediction(Record):
    """The highest output of a sample.

    Attributes:
        label: Its index.
        score: Its value, dequantized.
        expected: The label of the data; None where there is none.
    """

    label: int
    score: float
    expected: int | None = None


class RunRecord(Record):
    """What came of running a built model.

    Attributes:
        target: Name of the target.
        samples: How many were run.
        random: Whether they were random, for want of data.
        predictions: Of each sample, where the first output is one score a class; else empty.
        evaluation: The accuracy, where there are labels.
        measurement: Of one inference, of the first sample.
    """

    target: str
    samples: int
    random: bool
    predictions: tuple[Prediction, ...] = ()
    evaluation: Evaluation | None = None
    measurement: Measurement


def input_specs(artifact: Artifact, model: Model | None = None) -> tuple[InputSpec, ...]:
    """What data for a built model looks like: float and channels first, whatever the build takes.

    Args:
        artifact: The built model.
        model: What it was built from, which knows how raw data becomes its input.
    """
    specs = tuple(_float_spec(spec) for spec in artifact.inputs)
    if model is None or [spec.shape for spec in model.inputs] != [spec.shape for spec in specs]:
        return specs
    return tuple(
        spec.model_copy(update={"name": known.name, "preprocessing": known.preprocessing})
        for spec, known in zip(specs, model.inputs)
    )


def run_built(
    artifact: Artifact,
    data: Dataset | None = None,
    *,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[RunRecord, list[np.ndarray]]:
    """Run a built model on all samples and measure one inference.

    Args:
        artifact: The built model.
        data: Samples for `input_specs(artifact)` or `integer_specs(artifact)`; one random sample where there are none.
        on_progress: Told what is being done, how far it is and how far it goes.

    Returns:
        The record, and the outputs as float32, samples on axis 0.

    Raises:
        UserError: The data does not fit, or the run failed.
        MissingToolError: The emulator is missing.
    """

    def report(what: str, done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(what, done, total)

    batch = artifact.inputs[0].shape[0]
    first = _random(artifact) if data is None else data.read(0, batch)
    collected: list[list[np.ndarray]] = []
    done = 0
    for inputs in [first] if data is None else data.batches(_BATCH):
        results = artifact.run(_taken(artifact, inputs))
        collected.append([spec.dequantize(value) for spec, value in zip(artifact.outputs, results)])
        done += len(inputs[0])
        report("run", done, done if data is None else len(data))
    outputs = [np.concatenate(parts) for parts in zip(*collected)]
    evaluation = None if data is None or data.labels is None else _evaluated(outputs, data)
    report("measure", 0, 1)
    # An estimate takes as long as some emulated inferences, but there is one of it.
    options = {"cycles": True} if isinstance(artifact, EmulatedArtifact) else {}
    measurement = artifact.measured(_taken(artifact, first), **options)
    record = RunRecord(
        target=artifact.target.name,
        samples=len(outputs[0]),
        random=data is None,
        predictions=_predictions(outputs[0], data),
        evaluation=evaluation,
        measurement=measurement,
    )
    return record, outputs


def integer_specs(artifact: Artifact) -> tuple[InputSpec, ...]:
    """What the integers look like that the built model takes: its dtypes and its order of axes.

    Raises:
        UserError: It takes floats.
    """
    floats = next((spec for spec in artifact.inputs if spec.scale is None and spec.dtype.startswith("float")), None)
    if floats is not None:
        raise UserError(f"input '{floats.name}' of the build takes {floats.dtype}; leave --integers out")
    return tuple(InputSpec(name=spec.name, shape=spec.shape, dtype=spec.dtype) for spec in artifact.inputs)


def _taken(artifact: Artifact, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Values as the built model takes them: floats quantized, integers as they are."""
    return [
        spec.quantize(value) if value.dtype.kind == "f" else np.ascontiguousarray(value, spec.dtype)
        for spec, value in zip(artifact.inputs, values)
    ]


def save_outputs(artifact: Artifact, outputs: Sequence[np.ndarray], path: Path) -> None:
    """Write outputs to an .npz file, by the names of the model's outputs.

    Raises:
        UserError: The file cannot be written.
    """
    arrays: dict[str, Any] = {spec.name: value for spec, value in zip(artifact.outputs, outputs)}
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def with_preprocessing(specs: tuple[InputSpec, ...], steps: Preprocessing | None) -> tuple[InputSpec, ...]:
    """The same inputs, the first of them made by other steps."""
    if steps is None:
        return specs
    return specs[0].model_copy(update={"preprocessing": steps}), *specs[1:]


def _float_spec(spec: TensorSpec) -> InputSpec:
    shape, layout = spec.shape, spec.layout
    if spec.channels_last:
        shape, layout = (shape[0], shape[-1], *shape[1:-1]), layout_name(len(shape), last=False)
    return InputSpec(
        name=spec.name,
        shape=shape,
        dtype=spec.dtype if spec.scale is None else "float32",
        layout=layout,
    )


def _evaluated(outputs: Sequence[np.ndarray], data: Dataset) -> Evaluation:
    position = 0

    def stored(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        nonlocal position
        start, position = position, position + len(inputs[0])
        return [value[start:position] for value in outputs]

    return evaluate(stored, data)


def _random(artifact: Artifact) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    made = []
    for spec in artifact.inputs:
        shape, dtype = _float_spec(spec).shape, np.dtype(_float_spec(spec).dtype)
        if dtype.kind == "f":
            made.append(random.standard_normal(shape).astype(dtype))
        else:
            made.append(random.integers(*integer_range(dtype, spec.limit), shape, dtype, endpoint=True))
    return made


def _predictions(output: np.ndarray, data: Dataset | None) -> tuple[Prediction, ...]:
    if output.ndim != 2 or output.shape[1] < 2:
        return ()
    labels = [None] * len(output) if data is None or data.labels is None else data.labels.tolist()
    return tuple(
        Prediction(label=int(row.argmax()), score=float(row.max()), expected=expected) for row, expected in zip(output, labels)
    )
