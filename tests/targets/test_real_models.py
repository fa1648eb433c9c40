"""Trained models: the same bytes on every target, on real inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvmcompress
from tvmcompress.passes import LowerQDQ, Quantize, calibrate
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def _images(path: Path) -> np.ndarray:
    return np.load(path)["x_uint8"][:40].transpose(0, 3, 1, 2).astype("float32")


@pytest.fixture(scope="module")
def keywords(shared: Path) -> tuple[tvm.IRModule, np.ndarray]:
    """DS-CNN with its spectrograms."""
    model = tvmcompress.load(shared / "models" / "kws_dscnn_fp32.onnx")
    return model.module, np.load(shared / "data" / "kws01_dev500.npz")["x_float"][:40].transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def pictures(shared: Path) -> tuple[tvm.IRModule, np.ndarray]:
    """ResNet8 with CIFAR-10."""
    model = tvmcompress.load(shared / "models" / "ic_resnet8_fp32.onnx")
    return model.module, _images(shared / "data" / "cifar10_dev734.npz")


@pytest.mark.parametrize("net", ["keywords", "pictures"])
def test_the_integer_model_gives_the_same_bytes_everywhere(net: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    module, samples = request.getfixturevalue(net)
    samples = np.ascontiguousarray(samples, "float32")
    ranges = calibrate(module, [[samples[:20]]])
    lowered = tvm.transform.Sequential([Quantize(ranges), LowerQDQ()])(module)
    core = tvm.transform.Sequential([IntegerCore()])(lowered)
    instructions = {}
    for name in ("cortex-m4", "cortex-a72"):
        target = get_target(name)
        if target.missing_tools():
            pytest.skip("needs every tool chain")
        artifact = target.build(lowered, tmp_path / name)
        x = artifact.inputs[0].quantize(samples[20:24])
        np.testing.assert_array_equal(artifact.run([x])[0], run(core, [x])[0])
        instructions[name] = artifact.measure([x[:1]]).instructions
    assert instructions["cortex-a72"] < instructions["cortex-m4"]


def test_the_float_model_agrees_on_a_core_with_a_floating_point_unit(
    keywords: tuple[tvm.IRModule, np.ndarray], tmp_path: Path
) -> None:
    module, samples = keywords
    samples = np.ascontiguousarray(samples[:2], "float32")
    artifact = get_target("cortex-m4").build(module, tmp_path)
    np.testing.assert_allclose(artifact.run_float([samples])[0], run(module, [samples])[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("core", "options"), [("cortex-m4", {}), ("cortex-m4", {"patch_wise": True}), ("cortex-m55", {})])
def test_twenty_keywords_give_the_bytes_of_x86(shared: Path, tmp_path: Path, core: str, options: dict) -> None:
    """The official int8 model; `benchmarks/cortex_m_equal_bytes.py` has all models on all cores."""
    target = get_target(core)
    if target.missing_tools():
        pytest.skip("needs the Cortex-M tool chain")
    model = tvmcompress.load(shared / "models" / "kws_dscnn_int8.tflite")
    x = np.load(shared / "data" / "kws01_dev500.npz")["x_int8"][:20].reshape(20, 49, 10, 1)
    wanted = tvmcompress.build(model, "x86", tmp_path / "x86").run([x])[0]
    np.testing.assert_array_equal(target.build(model.module, tmp_path / core, **options).run([x])[0], wanted)
