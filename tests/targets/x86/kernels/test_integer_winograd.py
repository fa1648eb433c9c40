"""Exact minimal filtering of integers: byte for byte the reference, with every product that it is computed with."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.targets.x86.kernels.test_kernels import OFFERED, Layer, kernel_names
from tests.targets.x86.kernels.test_products import computed
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets.x86.host import cpu_features, tvm_target
from tvmcompress.targets.x86.kernels.integer_winograd import INTEGERS, LARGE_INTEGERS, filtering_of, transform_integers
from tvmcompress.targets.x86.kernels.intrinsics import MADD8, WORDS8, WORDS16
from tvmcompress.targets.x86.lower import call_sites, constant_arguments, lower, prim_funcs, workload
from tvmcompress.targets.x86.space import choice_of, schedule_as

AVX2 = "x86-64-v3"
WIDER = [
    pytest.param(cpu, marks=pytest.mark.skipif(not cpu_features(cpu) <= OFFERED, reason=f"this machine is no {cpu}"))
    for cpu in ("x86-64-v4", "x86-64-v4,+avx512vnni", "x86-64-v3,+avxvnni")
]
"""Sets with other products, of which this machine may have some."""


def convolution(shape, outputs, seed, padding=(1, 1, 1, 1), zero=-3, weight=None, **options):
    layer = Layer(shape, seed)
    operands, max_shift = layer.operands((outputs, 3, 3, shape[3]), outputs, 9 * shape[3], "double")
    if weight is not None:
        layer.params["weight"][:] = weight
    options = {"padding": padding, "input_zero_point": zero, "output_zero_point": 4, "max_shift": max_shift, **options}
    return layer, layer.finish(ops.qconv2d(layer.x, *operands, **options))


@pytest.mark.parametrize(("filtering", "scale"), [(INTEGERS, 2), (LARGE_INTEGERS, 24)])
def test_matrices_convolve(filtering, scale) -> None:
    random = np.random.default_rng(0)
    d, g = random.integers(-255, 256, filtering.places), random.integers(-128, 128, 3)
    found = filtering.back @ ((filtering.weights @ g) * (filtering.inputs @ d))
    np.testing.assert_array_equal(found, [scale * d[i : i + 3] @ g for i in range(filtering.tile)])


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    images=st.integers(1, 2),
    size=st.tuples(st.integers(6, 15), st.integers(6, 15)),
    channels=st.sampled_from([16, 24, 32]),
    outputs=st.sampled_from([16, 32, 48]),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    zero=st.sampled_from([-128, -3, 127]),
    seed=st.integers(0, 100),
)
def test_any_shape(images, size, channels, outputs, padding, zero, seed) -> None:
    layer, mod = convolution((images, *size, channels), outputs, seed, padding, zero)
    rows, columns = (size[0] + padding[0] + padding[2] - 2, size[1] + padding[1] + padding[3] - 2)
    filtered = INTEGERS.gain(rows, columns) >= 1.6 or LARGE_INTEGERS.gain(rows, columns) >= 2.4
    assert kernel_names(mod, cpu_features(AVX2)) == ["x86_qwinograd" if filtered else "x86_qconv2d"]
    x = layer.sample()
    np.testing.assert_array_equal(computed(mod, [x], AVX2), run(mod, [x])[0])


@pytest.mark.parametrize(
    ("size", "channels", "filtering"),
    [((8, 8), 32, LARGE_INTEGERS), ((6, 6), 32, INTEGERS), ((8, 8), 96, INTEGERS)],
)
def test_extremes(size, channels, filtering) -> None:
    weight = np.full((16, 3, 3, channels), -128, "int8")
    weight[8:], weight[::4, 1] = 127, 127
    weight[::5, ::2, 1], weight[::5, 1, ::2] = 127, 127
    assert filtering_of(weight, (1, *size, 16), MADD8) is filtering
    for zero in (-128, 127):
        _, mod = convolution((1, *size, channels), 16, 0, zero=zero, weight=weight)
        assert kernel_names(mod, cpu_features(AVX2)) == ["x86_qwinograd"]
        x = np.full((1, *size, channels), 127, "int8")
        x[:, ::2, 1::2] = -128
        x[:, 1::4] = np.where(np.arange(channels) % 3, -128, 127)
        for values in (x, -1 - x, np.full_like(x, 127), np.full_like(x, -128)):
            np.testing.assert_array_equal(computed(mod, [values], AVX2), run(mod, [values])[0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), inputs=st.integers(1, 6), spread=st.sampled_from([0.02, 0.5, 1.0]))
def test_all_numbers_fit(seed, inputs, spread) -> None:
    """The bounds that the docstring gives, on inputs and weights that are mostly extremes."""
    random = np.random.default_rng(seed)
    for filtering, pixel, factor in ((INTEGERS, 4 * 255, 9 * 128), (LARGE_INTEGERS, 100 * 255, 49 * 128)):
        places = filtering.places
        x = random.choice([-255, 255], (places, places, inputs)) * (random.random((places, places, inputs)) > spread / 2)
        g = random.choice([-128, 127], (8, 3, 3, inputs))
        transformed = np.einsum("xi,yj,ijc->xyc", filtering.inputs, filtering.inputs, x)
        factors = np.einsum("xi,yj,oijc->xyoc", filtering.weights, filtering.weights, g)
        assert np.abs(transformed).max() <= pixel < 2**15
        assert np.abs(factors).max() <= factor < 2**15
        sums = np.einsum("xyc,xyoc->xyo", transformed, factors)
        y = np.einsum("ax,by,xyo->abo", filtering.back, filtering.back, sums)
        scale = {4: 4, 6: 576}[places]
        direct = [
            np.einsum("ijc,oijc->o", x[a : a + 3, b : b + 3], g) for a in range(filtering.tile) for b in range(filtering.tile)
        ]
        np.testing.assert_array_equal(y.reshape(-1, 8), scale * np.array(direct))
        wrapped = (y.astype(np.int32).astype(np.int64) * pow(scale // (scale & -scale), -1, 1 << 32)).astype(np.int32)
        np.testing.assert_array_equal(wrapped >> {4: 2, 6: 6}[places], y // scale)


def test_where_it_pays() -> None:
    weight = np.random.default_rng(0).integers(-128, 128, (32, 3, 3, 32)).astype("int8")
    assert filtering_of(weight, (1, 8, 8, 32), MADD8) is LARGE_INTEGERS
    assert filtering_of(weight, (1, 6, 6, 32), MADD8) is INTEGERS, "a large tile reaches far over the border"
    assert filtering_of(weight, (1, 3, 3, 32), MADD8) is None, "any tile does"
    assert filtering_of(weight[:, :2], (1, 8, 8, 32), MADD8) is None, "no kernel of three rows"
    large = np.full((16, 3, 3, 480), 127, "int8")
    assert filtering_of(large, (1, 8, 8, 16), MADD8) is None, "sums may leave int32"
    assert filtering_of(large[..., :80], (1, 8, 8, 16), MADD8) is INTEGERS, "sums of the large one may"
    transformed = transform_integers(weight, INTEGERS, MADD8)
    assert transformed.shape == (4, 4, 4, 16, 8, 2)
    np.testing.assert_array_equal(transformed[0, 3, 1, 2, 3], 4 * weight[11, 0, 2, 4:6].astype("int16"))
    transformed = transform_integers(weight, LARGE_INTEGERS, MADD8)
    assert transformed.shape == (6, 6, 4, 16, 8, 2)
    np.testing.assert_array_equal(transformed[0, 5, 1, 2, 3], weight[11, 0, 2, 4:6].astype("int16"))


@pytest.mark.parametrize("dot", [WORDS8, WORDS16])
def test_products_of_bytes_need_many_channels_to_be_slower(dot) -> None:
    weight = np.random.default_rng(0).integers(-40, 41, (64, 3, 3, 64)).astype("int8")
    assert filtering_of(weight, (1, 8, 8, 64), dot) is LARGE_INTEGERS
    assert filtering_of(weight, (1, 7, 7, 64), dot) is None, "a large tile reaches far over the border"
    assert filtering_of(weight, (1, 6, 6, 64), dot) is None, "the smaller tile takes as long as the definition"
    assert filtering_of(weight[:32, ..., :32], (1, 8, 8, 32), dot) is None, "nor are there channels enough"
    transformed = transform_integers(weight, LARGE_INTEGERS, dot)
    assert transformed.shape == (6, 6, 64 // dot.lanes, 32, dot.lanes, 2)


@pytest.mark.parametrize(
    ("cpu", "kernel"),
    [("x86-64-v4", "x86_qwinograd"), ("x86-64-v4,+avx512vnni", "x86_qconv2d"), ("x86-64-v3,+avxvnni", "x86_qconv2d")],
)
def test_what_other_machines_take(cpu, kernel) -> None:
    for channels, expected in ((32, kernel), (64, "x86_qwinograd")):
        _, mod = convolution((1, 8, 8, channels), channels, 0)
        assert kernel_names(mod, cpu_features(cpu)) == [expected]
    _, mod = convolution((1, 8, 8, 64), 64, 0)
    assert kernel_names(mod, cpu_features("sapphirerapids")) == ["x86_tile_conv2d"], "tiles are faster"


@pytest.mark.parametrize("cpu", WIDER)
@pytest.mark.parametrize(("size", "padding", "zero"), [((12, 11), (1, 1, 1, 1), -128), ((13, 10), (0, 2, 1, 0), 127)])
def test_wider_machines_compute_the_same(cpu, size, padding, zero) -> None:
    layer, mod = convolution((2, *size, 64), 80, 1, padding, zero, weight=None)
    assert kernel_names(mod, cpu_features(cpu)) == ["x86_qwinograd"]
    extremes = layer.random.choice([-128, 127], (2, *size, 64)).astype("int8")
    for x in (layer.sample(), extremes, np.full_like(extremes, 127), np.full_like(extremes, -128)):
        np.testing.assert_array_equal(computed(mod, [x], cpu), run(mod, [x])[0])


@pytest.mark.parametrize("options", [{"strides": (2, 2)}, {"dilation": (2, 2)}])
def test_others_keep_the_definition(options) -> None:
    _, mod = convolution((1, 9, 9, 16), 16, 0, (2, 2, 2, 2), **options)
    assert kernel_names(mod, cpu_features(AVX2)) == ["x86_qconv2d"]


@pytest.mark.parametrize("size", [(7, 12), (6, 10)])
def test_every_decision(size) -> None:
    layer, mod = convolution((1, *size, 16), 32, 5)
    x = layer.random.integers(-128, 128, (1, *size, 16)).astype("int8")
    (expected,) = run(mod, [x])
    with tvm_target(AVX2, 1) as target:
        lowered = lower(mod, cpu_features(AVX2))
        (name,) = [name for name in prim_funcs(lowered) if "winograd" in name]
        constants = constant_arguments(call_sites(lowered)[name][0])
        function = workload(prim_funcs(lowered)[name])
        choice = choice_of(function)
        points = choice.space[:: max(1, len(choice.space) // 5)]
        assert len({tuple(point.values()) for point in points}) >= 5
        for point in points:
            built = tvm.tirx.build(schedule_as(function, point).mod, target=target)
            values = [x, *(constants[index] for index in sorted(constants)), np.zeros(expected.shape, "int8")]
            tensors = [tvm.runtime.tensor(np.ascontiguousarray(value)) for value in values]
            built["main"](*tensors)
            np.testing.assert_array_equal(tensors[-1].numpy(), expected, err_msg=str(point))
