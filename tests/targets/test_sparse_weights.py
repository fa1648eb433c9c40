"""Weights of which two of every four are stored, on targets: the same bytes, less flash."""

# mypy: ignore-errors

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.numbers.test_sparsity_2_4 import sparse
from tests.targets.micro.kernels.test_kernels import assert_kernel, channels, module
from tvmcompress.passes import CompressSparse, LowerQDQ, Quantize, Sparsify, calibrate
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.passes.lowering.integer_core import IntegerCore
from tvmcompress.targets import get_target

pytestmark = pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")


@pytest.fixture(scope="module")
def sparse_net(float_net, samples):
    mod = Sparsify(pattern=(2, 4))(float_net)
    return LowerQDQ()(Quantize(calibrate(mod, [[samples]]))(mod))


WAYS = {
    "kernels": ("cortex-m4", {}),
    "strips": ("cortex-m4", {"patch_wise": True}),
    "C": ("cortex-m4", {"emit": "c"}),
    "Helium": ("cortex-m55", {}),
    "no DSP": ("cortex-m0plus", {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_bytes_in_less_flash(sparse_net, samples, tmp_path, way) -> None:
    name, options = WAYS[way]
    constants = {}
    for stored in (False, True):
        artifact = get_target(name).build(sparse_net, tmp_path / str(stored), sparse_weights=stored, **options)
        x = artifact.inputs[0].quantize(samples)
        want = run(IntegerCore()(sparse_net), [x])[0]
        got = np.concatenate([artifact.run([x[i : i + 1]])[0] for i in range(len(x))])
        np.testing.assert_array_equal(got, want)
        constants[stored] = artifact.measure([x[:1]]).constant_bytes
    # Three of eight bytes of two convolutions and the head; units of groups are filled up.
    weights = 12 * 8 + 12 * 108 + 60
    assert constants[False] - constants[True] > 0.25 * weights


@pytest.mark.parametrize("name", ["x86", "cortex-a72"])
def test_other_targets_take_such_a_module(sparse_net, samples, tmp_path, name) -> None:
    target = get_target(name)
    if target.missing_tools():
        pytest.skip(f"needs the tools of {name}")
    artifact = target.build(CompressSparse()(sparse_net), tmp_path)
    x = artifact.inputs[0].quantize(samples[:1])
    np.testing.assert_array_equal(artifact.run([x])[0], run(IntegerCore()(sparse_net), [x])[0])


@pytest.mark.parametrize(
    ("size", "outputs", "kernel", "strides", "padding", "extra"),
    [
        ((5, 7, 8), 6, (3, 3), (1, 1), (1, 1, 1, 1), {"input_zero_point": 9}),
        ((8, 6, 4), 5, (3, 3), (2, 2), (0, 1, 1, 0), {"output_zero_point": 7}),
        ((3, 5, 12), 7, (1, 1), (1, 1), (0, 0, 0, 0), {"rounding": "single"}),
        ((6, 5, 16), 3, (1, 1), (2, 2), (0, 0, 0, 0), {"qmin": -20, "qmax": 90}),
        ((1, 2, 4), 1, (1, 1), (1, 1), (0, 0, 0, 0), {}),
        ((3, 4, 4), 9, (3, 4), (1, 1), (0, 0, 0, 0), {}),
        ((4, 5, 4), 3, (3, 3), (1, 1), (0, 0, 0, 1), {"input_zero_point": 9}),
        ((4, 5, 4), 3, (3, 3), (1, 1), (0, 0, 1, 0), {"input_zero_point": 9}),
    ],
)
def test_kernel_of_convolutions(size, outputs, kernel, strides, padding, extra, tmp_path) -> None:
    weight = sparse(np.random.default_rng(0), (outputs, *kernel, size[2]))
    attrs = {"strides": strides, "padding": padding, "input_zero_point": -128, "output_zero_point": -128, **extra}
    mod = module(lambda *a: ops.qconv2d(*a, **attrs), [(1, *size)], {"weight": weight, **channels(outputs)})
    assert_kernel(CompressSparse()(mod), "sparse", tmp_path)


@given(seed=st.integers(0, 2**31), inputs=st.integers(1, 40), outputs=st.integers(1, 11), zero=st.integers(-128, 127))
@settings(max_examples=6, deadline=None)
def test_kernel_of_fully_connected_layers(seed, inputs, outputs, zero) -> None:
    weight = sparse(np.random.default_rng(seed), (outputs, 4 * inputs))
    attrs = {"input_zero_point": zero, "output_zero_point": 3}
    mod = module(lambda *a: ops.qdense(*a, **attrs), [(1, 4 * inputs)], {"weight": weight, **channels(outputs)})
    with tempfile.TemporaryDirectory() as folder:
        assert_kernel(CompressSparse()(mod), "sparse", Path(folder))


@pytest.mark.parametrize(
    "attrs", [{"dilation": (2, 2)}, {"groups": 2}, {"groups": 2, "padding": (1, 1, 1, 1), "strides": (2, 2)}]
)
def test_layers_without_a_kernel(attrs, tmp_path) -> None:
    depth = 8 // attrs.get("groups", 1)
    weight = sparse(np.random.default_rng(0), (6, 3, 3, depth))
    mod = module(
        lambda *a: ops.qconv2d(*a, input_zero_point=5, output_zero_point=-128, **attrs),
        [(1, 7, 8, 8)],
        {"weight": weight, **channels(6)},
    )
    assert_kernel(CompressSparse()(mod), "qconv2d", tmp_path)
