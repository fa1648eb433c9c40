"""Float models in float16: what is computed, by which instructions, and for which cores it is refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.passes import small_models
from tvmcompress.passes import UserError
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.targets import get_target
from tvmcompress.targets.arm.artifact import CortexAArtifact

pytestmark = pytest.mark.skipif(bool(get_target("cortex-a76").missing_tools()), reason="needs the Cortex-A tool chain")
op = relax.op
Parameters = dict[str, relax.Expr]
# Input, weights, the layer, and products of a sum.
LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[..., relax.Expr], int]] = {
    "dense": ((1, 64), (64, 40), op.matmul, 64),
    "tokens": ((1, 9, 33), (33, 24), op.matmul, 33),
    "1x1": ((1, 32, 7, 6), (40, 32, 1, 1), op.nn.conv2d, 32),
    "3x3": ((1, 16, 9, 8), (24, 16, 3, 3), lambda x, w: op.nn.conv2d(x, w, padding=1), 144),
    "3x3 strided": ((1, 3, 13, 11), (8, 3, 3, 3), lambda x, w: op.nn.conv2d(x, w, strides=2, padding=1), 27),
    "depthwise": ((1, 16, 9, 8), (16, 1, 3, 3), lambda x, w: op.nn.conv2d(x, w, padding=1, groups=16), 9),
}


def built(mod: tvm.IRModule, folder: Path, **options: object) -> CortexAArtifact:
    artifact = get_target("cortex-a76").build(mod, folder, **options)
    assert isinstance(artifact, CortexAArtifact)
    return artifact


def mnemonics(artifact: CortexAArtifact) -> str:
    """The kernels in assembly language."""
    objects = sorted(artifact.path.glob("*_kernels*.o"))
    return subprocess.run(["aarch64-linux-gnu-objdump", "-d", *objects], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_float16(name: str, tmp_path: Path) -> None:
    """Beside the layer in float32: each rounding is half a unit in the last place of eleven bits, and errors of a sum of K
    random products grow with the root of K."""
    shape, weights, layer, depth = LAYERS[name]
    params = small_models.weights(weight=weights)
    mod = small_models.model(lambda x, p: layer(x, p["weight"]), shape, params=params)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    artifact = built(mod, tmp_path / "halves", float16=True)
    assert artifact.inputs[0].dtype == artifact.outputs[0].dtype == "float32"
    (got,) = artifact.run_float([x])
    (wanted,) = run(mod, [x])
    error = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert 1e-6 < error <= (2 + np.sqrt(depth)) * 2.0**-11
    text = mnemonics(artifact)
    assert "fmla" in text
    assert ".8h" in text
    whole = built(mod, tmp_path / "whole").measure()
    assert (artifact.measure().instructions or 0) < (whole.instructions or 0)


def test_a_network_in_float16(float_net: tvm.IRModule, samples: np.ndarray, tmp_path: Path) -> None:
    """With pools, a mean and a softmax, which stay in float32; threads compute the same."""
    artifact = built(float_net, tmp_path, float16=True, threads=2)
    (wanted,) = run(float_net, [samples])
    (got,) = artifact.run_float([samples])
    assert np.abs(got - wanted).max() < 0.01
    np.testing.assert_array_equal(artifact.run([samples], threads=2)[0], artifact.run([samples])[0])


def test_weights_beyond_the_range_of_float16(tmp_path: Path) -> None:
    """They stay as they are where nothing is multiplied in float16."""
    params = {"scale": np.full((1, 8, 1, 1), 1e6, np.float32)}
    mod = small_models.model(lambda x, p: op.multiply(x, p["scale"]), (1, 8, 3, 3), params=params)
    x = np.random.default_rng(0).standard_normal((1, 8, 3, 3)).astype(np.float32)
    np.testing.assert_allclose(built(mod, tmp_path, float16=True).run_float([x])[0], x * 1e6, rtol=1e-6)


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a72", "cortex-a7", "armv8-a"])
def test_cores_without_it(core: str, float_net: tvm.IRModule, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no float16 arithmetic \(asimdhp, Armv8.2\); build for a core that has it"):
        get_target(core).build(float_net, tmp_path, float16=True)


def test_c_source_has_none(float_net: tvm.IRModule, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="C source has no float16 arithmetic"):
        built(float_net, tmp_path, float16=True, emit="c")


def test_an_integer_model_has_no_use_for_it(integer_net: tvm.IRModule, samples: np.ndarray, tmp_path: Path) -> None:
    plain, halves = (built(integer_net, tmp_path / name, float16=name == "halves") for name in ("plain", "halves"))
    x = plain.inputs[0].quantize(samples)
    np.testing.assert_array_equal(plain.run([x])[0], halves.run([x])[0])


def test_several_outputs(tmp_path: Path) -> None:
    """One of them in float16 inside, and one that never is."""
    shape = (1, 16, 5, 4)
    params = small_models.weights(weight=(24, 16, 1, 1))

    def build(x: relax.Expr, p: Parameters) -> relax.Expr:
        y = op.nn.conv2d(x, p["weight"])
        return relax.Tuple([op.nn.relu(y), op.exp(x)])

    mod = small_models.model(build, shape, params=params)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found, wanted = built(mod, tmp_path, float16=True).run_float([x]), run(mod, [x])
    assert [value.dtype for value in found] == [np.float32, np.float32]
    np.testing.assert_allclose(found[0], wanted[0], atol=0.01 * np.abs(wanted[0]).max())
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)


def test_what_is_split_and_joined(tmp_path: Path) -> None:
    """Parts of a tensor in float16, joined, and beside what is in float32."""
    params = small_models.weights(weight=(16, 8, 3, 3))

    def build(x: relax.Expr, p: Parameters) -> relax.Expr:
        parts = relax.BlockBuilder.current().emit(op.split(op.nn.conv2d(x, p["weight"], padding=1), 2, 1))
        return op.add(op.concat([parts[1], op.nn.relu(parts[0])], 1), op.concat([x, op.sigmoid(parts[0])], 1))

    shape = (1, 8, 6, 5)
    mod = small_models.model(build, shape, params=params)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (found,), (wanted,) = built(mod, tmp_path, float16=True).run_float([x]), run(mod, [x])
    np.testing.assert_allclose(found, wanted, atol=0.01 * np.abs(wanted).max())
