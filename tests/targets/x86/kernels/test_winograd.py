"""Minimal filtering: what the definition gives in float64, for every shape, decision and instruction set."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.targets.x86.kernels.test_kernels import CPUS
from tests.targets.x86.kernels.test_products import computed, module
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.targets.x86.host import cpu_features, tvm_target
from tvmcompress.targets.x86.kernels import winograd
from tvmcompress.targets.x86.kernels.winograd import FLOATS, sample_error, winograd_pays
from tvmcompress.targets.x86.lower import lower, prim_funcs, workload
from tvmcompress.targets.x86.space import choice_of, schedule_as, work_of

SETS = [CPUS[0], CPUS[2]]
"""AVX2 and AVX-512."""


def convolved(x, weight, padding):
    """NCHW and OIHW by the definition, in float64."""
    top, left, bottom, right = padding
    x = np.pad(x.astype("float64"), ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight.astype("float64"), optimize=True)


def names_of(mod, cpu):
    with tvm_target(cpu, 1):
        return list(prim_funcs(lower(mod, cpu_features(cpu))))


def layer(shape, weight, padding=(1, 1, 1, 1), finish=relax.op.nn.relu):
    def call(x, w):
        return finish(relax.op.nn.conv2d(x, w, padding=list(padding)))

    return module([shape, weight.shape], "float32", call, [weight])


def drawn(seed, shape, outputs):
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape).astype("float32")
    weight = random.standard_normal((outputs, shape[1], 3, 3)).astype("float32") / np.float32(3 * np.sqrt(shape[1]))
    return x, weight


def test_matrices_multiply_polynomials() -> None:
    random = np.random.default_rng(0)
    d, g = random.standard_normal(FLOATS.places), random.standard_normal(3)
    expected = [sum(d[i + j] * g[j] for j in range(3)) for i in range(FLOATS.tile)]
    np.testing.assert_allclose(FLOATS.back @ ((FLOATS.weights @ g) * (FLOATS.inputs @ d)), expected, rtol=1e-12)
    # Those of the transforms at run time lose nothing as float32.
    for matrix in (FLOATS.back, FLOATS.inputs):
        np.testing.assert_array_equal(matrix.astype("float32"), matrix)


@pytest.mark.parametrize("cpu", SETS)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    images=st.integers(1, 2),
    size=st.tuples(st.integers(8, 21), st.integers(8, 21)),
    channels=st.sampled_from([16, 24, 32]),
    outputs=st.sampled_from([16, 24, 40, 64]),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    seed=st.integers(0, 100),
)
def test_any_shape(cpu, images, size, channels, outputs, padding, seed) -> None:
    x, weight = drawn(seed, (images, channels, *size), outputs)
    mod = layer(x.shape, weight, padding)
    expected = np.maximum(convolved(x, weight, padding), 0)
    tiles = -(-expected.shape[2] // FLOATS.tile) * -(-expected.shape[3] // FLOATS.tile)
    filled = expected.shape[2] * expected.shape[3] >= 8 * tiles
    assert any("winograd" in name for name in names_of(mod, cpu)) == filled
    np.testing.assert_allclose(computed(mod, [x], cpu), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cpu", SETS)
def test_every_decision(cpu) -> None:
    x, weight = drawn(1, (1, 16, 9, 14), 32)
    with tvm_target(cpu, 1) as target:
        (mod,) = [
            workload(func)
            for name, func in prim_funcs(lower(layer(x.shape, weight), cpu_features(cpu))).items()
            if "winograd" in name
        ]
        choice = choice_of(mod)
        assert choice.workload.kernel == "winograd"
        assert work_of(mod) == 36 * 3 * 4 * 16 * 32
        points = choice.space[:: max(1, len(choice.space) // 5)]
        assert len({tuple(point.values()) for point in points}) >= 5
        transformed = winograd.transform_weights(weight.transpose(2, 3, 1, 0), 16)
        arguments = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)), transformed]
        expected = np.maximum(convolved(x, weight, (1, 1, 1, 1)), 0).transpose(0, 2, 3, 1)
        for point in points:
            built = tvm.tirx.build(schedule_as(mod, point).mod, target=target)
            tensors = [tvm.runtime.tensor(value) for value in (*arguments, np.zeros(expected.shape, "float32"))]
            built["main"](*tensors)
            np.testing.assert_allclose(tensors[-1].numpy(), expected, rtol=1e-5, atol=1e-5, err_msg=str(point))


@pytest.mark.parametrize("cpu", SETS)
def test_what_follows_is_part_of_the_function(cpu) -> None:
    x, weight = drawn(2, (1, 16, 13, 12), 16)
    bias = np.linspace(-1, 1, 16, dtype="float32").reshape(1, 16, 1, 1)

    def call(x, w, b):
        biased = relax.op.add(relax.op.nn.conv2d(x, w, padding=[1, 1, 1, 1]), b)
        return relax.op.nn.relu(relax.op.add(biased, x))

    mod = module([x.shape, weight.shape, bias.shape], "float32", call, [weight, bias])
    assert [name for name in names_of(mod, cpu) if "winograd" in name] == ["fused_x86_winograd_add_add1_relu"]
    expected = np.maximum(convolved(x, weight, (1, 1, 1, 1)) + bias + x, 0)
    np.testing.assert_allclose(computed(mod, [x], cpu), expected, rtol=1e-5, atol=1e-5)


def test_tiles_leave_one_of_the_registers_free() -> None:
    _, weight = drawn(4, (1, 64, 4, 4), 64)
    functions = prim_funcs(lower(layer((1, 64, 56, 56), weight), cpu_features("x86-64-v4")))
    (choice,) = [choice_of(workload(func)) for name, func in functions.items() if "winograd" in name]
    vectors = choice.default["channels"] // 16
    sums = vectors * choice.default["positions"]
    assert sums >= 8
    assert sums + vectors + 1 < 31


def test_where_it_pays() -> None:
    _, weight = drawn(3, (1, 32, 8, 8), 32)
    weight = weight.transpose(2, 3, 1, 0)
    assert winograd_pays(weight, (1, 16, 16, 32))
    assert not winograd_pays(weight, (1, 5, 5, 32)), "tiles reach far over the border"
    assert not winograd_pays(weight[:, :, :8], (1, 16, 16, 32)), "transforms are as long as sums"
    assert not winograd_pays(weight[:2], (1, 16, 16, 32)), "no kernel of three rows"
    large = np.tile(weight, (1, 1, 8, 8))
    assert winograd_pays(large, (1, 12, 12, 256))
    assert not winograd_pays(large, (1, 7, 7, 256)), "weights are read too often"
    assert not winograd_pays(np.tile(large, (1, 1, 2, 2)), (1, 28, 28, 512)), "too many bytes"


def test_error_is_that_of_a_sample() -> None:
    _, weight = drawn(4, (1, 64, 8, 8), 32)
    weight = weight.transpose(2, 3, 1, 0)
    assert 1e-7 < sample_error(weight) < 2e-5
    # Sums of such weights leave float32 only when transformed.
    extreme = (weight * (3e38 / np.abs(weight).astype("float64").max())).astype("float32")
    with np.errstate(all="ignore"):
        assert not winograd_pays(extreme, (1, 16, 16, 32))
    weight[..., 3] = 0
    assert sample_error(weight) < 2e-5


@pytest.mark.parametrize("options", [{"strides": [2, 2]}, {"dilation": [2, 2]}, {"groups": 2}])
def test_others_keep_the_definition(options) -> None:
    x, weight = drawn(5, (1, 32, 16, 16), 32)
    weight = weight[:, : 32 // options.get("groups", 1)]
    mod = module(
        [x.shape, weight.shape], "float32", lambda a, w: relax.op.nn.conv2d(a, w, padding=[2, 2, 2, 2], **options), [weight]
    )
    assert not any("winograd" in name for name in names_of(mod, "x86-64-v3"))
