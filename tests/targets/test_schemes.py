"""Numerical schemes on targets: the same bytes everywhere, and figures that show what was stored."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, Quantize, Scheme, calibrate
from tvmcompress.passes.integer.core import IntegerCore
from tvmcompress.passes.interpreter import run
from tvmcompress.targets import get_target

TARGETS = ["x86", "cortex-a72", "cortex-m4"]


def _artifact(mod, name, folder):
    target = get_target(name)
    if target.missing_tools():
        pytest.skip(f"needs the tools of {name}")
    return target.build(mod, folder)


@pytest.fixture(scope="module")
def ranges(float_net, samples):
    return calibrate(float_net, [[samples]])


def _check(mod, name, samples, folder):
    artifact = _artifact(mod, name, folder)
    x = artifact.inputs[0].quantize(samples)
    want = run(IntegerCore()(mod), [x])[0]
    got = np.concatenate([artifact.run([x[i : i + 1]])[0] for i in range(len(x))])
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
    return artifact


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("group_size", [0, 4])
def test_int4_weights(float_net, samples, ranges, tmp_path, name, group_size) -> None:
    qdq = Quantize(ranges, precision=Scheme("int4", group_size=group_size))(float_net)
    _check(LowerQDQ()(qdq), name, samples, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_float16_weights(float_net, samples, tmp_path, name) -> None:
    halved = Quantize({}, precision="float16")(float_net)
    artifact = _artifact(halved, name, tmp_path)
    np.testing.assert_allclose(artifact.run_float([samples[:1]])[0], run(halved, [samples[:1]])[0], rtol=2e-5, atol=1e-6)


def test_stored_weights_take_less_flash(float_net, integer_net, samples, ranges, tmp_path) -> None:
    halved = Quantize({}, precision="float16")(float_net)
    packed = LowerQDQ()(Quantize(ranges, precision="int4")(float_net))
    sizes = {
        what: _artifact(mod, "cortex-m4", tmp_path / what).measure().constant_bytes
        for what, mod in {"float": float_net, "halved": halved, "integer": integer_net, "packed": packed}.items()
    }
    weights = 8 * 27 + 8 * 9 + 12 * 8 + 12 * 108 + 60
    assert sizes["float"] - sizes["halved"] == 2 * weights
    # Kernels of int8 weights fill up whole words; multipliers take a byte a channel.
    assert sizes["packed"] < sizes["integer"] - 0.4 * weights


@pytest.mark.parametrize("name", TARGETS)
def test_unsigned_activations(float_net, integer_net, samples, ranges, tmp_path, name) -> None:
    unsigned = LowerQDQ()(Quantize(ranges, precision="uint8")(float_net))
    artifact = _check(unsigned, name, samples, tmp_path)
    # They are the signed ones with the top bit flipped, in the memory of a device as well.
    np.testing.assert_array_equal(artifact.run_float([samples[:1]])[0], run(integer_net, [samples[:1]])[0])
