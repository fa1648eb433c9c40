"""Numerical schemes on targets: the same bytes everywhere, and figures that show what was stored."""

# mypy: ignore-errors

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvmcompress.passes import LowerQDQ, Quantize, Scheme, calibrate
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.lowering.integer_core import IntegerCore
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


@pytest.mark.parametrize("scheme", [Scheme("int4", activation_bits=4), Scheme("uint8", activation_bits=3)], ids=["4", "3"])
@pytest.mark.parametrize("name", [*TARGETS, "cortex-m55", "cortex-a76"])
def test_activations_of_few_bits(float_net, samples, ranges, tmp_path, name, scheme) -> None:
    few = LowerQDQ()(Quantize(ranges, precision=scheme)(float_net))
    # What lies outside the ranges seen meets the limits.
    _check(few, name, 3 * samples, tmp_path)


@pytest.mark.parametrize("name", [*TARGETS, "cortex-m0plus"])
def test_wide_activations(float_net, samples, ranges, tmp_path, name) -> None:
    wide = LowerQDQ()(Quantize(ranges, precision="int16x8")(float_net))
    artifact = _check(wide, name, samples[:2], tmp_path)
    assert [spec.dtype for spec in (*artifact.inputs, *artifact.outputs)] == ["int16", "int16"]
    (real,) = run(float_net, [samples[:1]])
    np.testing.assert_allclose(artifact.run_float([samples[:1]])[0], real, atol=0.01)


@given(
    assigned=st.lists(st.sampled_from(["int8", "uint8", "int16x8", "int4", "float16", "float32"]), min_size=5, max_size=5)
)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mixture_of_precisions(float_net, samples, ranges, assigned) -> None:
    layers = [
        var.name
        for var, value in bindings(float_net["main"])
        if getattr(getattr(value, "op", None), "name", "") in ("relax.nn.conv2d", "relax.matmul")
    ]
    mixed = LowerQDQ()(Quantize(ranges, precision={**dict(zip(layers, assigned, strict=True)), "*": "int8"})(float_net))
    (real,) = run(float_net, [samples])
    core = IntegerCore()(mixed)
    exact = not {"float16", "float32"} & set(assigned)
    for name in ("x86", "cortex-a72"):
        with tempfile.TemporaryDirectory() as folder:
            artifact = _artifact(mixed, name, Path(folder) / "built")
            x = artifact.inputs[0].quantize(samples[:1])
            (want,), (got,) = run(core, [x]), artifact.run([x])
        assert got.dtype == want.dtype
        # A sum of floats may be rounded to another integer behind it.
        assert np.abs(got.astype(float) - want).max() <= (0 if exact else 0.02 * np.ptp(want.astype(float)) + 1)
    assert np.abs(run(mixed, [samples])[0] - real).max() < 0.25
