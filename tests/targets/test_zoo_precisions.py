"""Networks of all kinds in all precisions, a sample; `benchmarks/zoo_precisions.py` has all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress.importing import from_onnx
from tvmcompress.measuring.benchmarking import check
from tvmcompress.measuring.building import executable
from tvmcompress.targets import get_target

pytest.importorskip("torch")

from ..passes import torch_zoo

BY_NAME = {architecture.name: architecture for architecture in torch_zoo.ARCHITECTURES}
# Joins of int16, resizing whose places are integers of 64 bits, convolutions over time, points, masks.
SAMPLE = [
    ("densenet", "int16x8", "x86"),
    ("SuperResolution", "float32", "cortex-m4"),
    ("TemporalConvolutions", "int4", "cortex-m4"),
    ("PointNet", "uint8", "cortex-m4"),
    ("normalizations", "int16x8", "x86"),
    ("Llama", "float16", "x86"),
]


@pytest.mark.parametrize(("name", "precision", "target"), SAMPLE)
def test_builds_compute_what_the_model_does(name: str, precision: str, target: str, tmp_path: Path) -> None:
    if get_target(target).missing_tools():
        pytest.skip(f"needs the tools of {target}")
    samples = [BY_NAME[name].sample(seed) for seed in range(4)]
    data = [np.concatenate(values) for values in zip(*samples)]
    model = from_onnx(torch_zoo.export(torch_zoo.instantiate(BY_NAME[name].build), samples[0]))
    if precision != "float32":
        given = dict(zip((spec.name for spec in model.inputs), data))
        model = executable(tvmcompress.compress(model, given, quantize=precision).model)
    options = {"tuning_log": False} if target == "x86" else {"check_memory": False}
    artifact = tvmcompress.build(model, target, tmp_path, **options)
    check(model, artifact, [value[: 2 * spec.shape[0]] for value, spec in zip(data, model.inputs)], "it")
