"""Exact minimal filtering of integers: byte for byte the reference, where AVX2 is all that there is."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.targets.x86.kernels.test_kernels import Layer, kernel_names
from tests.targets.x86.kernels.test_products import computed
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets.x86.host import cpu_features, tvm_target
from tvmcompress.targets.x86.kernels.integer_winograd import INTEGERS, integers_pay, transform_integers
from tvmcompress.targets.x86.lower import call_sites, constant_arguments, lower, prim_funcs, workload
from tvmcompress.targets.x86.space import choice_of, schedule_as

AVX2 = "x86-64-v3"


def convolution(shape, outputs, seed, padding=(1, 1, 1, 1), zero=-3, weight=None, **options):
    layer = Layer(shape, seed)
    operands, max_shift = layer.operands((outputs, 3, 3, shape[3]), outputs, 9 * shape[3], "double")
    if weight is not None:
        layer.params["weight"][:] = weight
    options = {"padding": padding, "input_zero_point": zero, "output_zero_point": 4, "max_shift": max_shift, **options}
    return layer, layer.finish(ops.qconv2d(layer.x, *operands, **options))


def test_matrices_convolve() -> None:
    random = np.random.default_rng(0)
    d, g = random.integers(-255, 256, 4), random.integers(-128, 128, 3)
    found = INTEGERS.back @ ((INTEGERS.weights @ g) * (INTEGERS.inputs @ d))
    np.testing.assert_array_equal(found, [2 * d[i : i + 3] @ g for i in range(2)])


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
    filtered = INTEGERS.gain(rows, columns) >= 1.6
    assert kernel_names(mod, cpu_features(AVX2)) == ["x86_qwinograd" if filtered else "x86_qconv2d"]
    x = layer.sample()
    np.testing.assert_array_equal(computed(mod, [x], AVX2), run(mod, [x])[0])


def test_extremes() -> None:
    weight = np.full((16, 3, 3, 32), -128, "int8")
    weight[8:], weight[::4, 1] = 127, 127
    for zero in (-128, 127):
        _, mod = convolution((1, 8, 8, 32), 16, 0, zero=zero, weight=weight)
        assert kernel_names(mod, cpu_features(AVX2)) == ["x86_qwinograd"]
        x = np.full((1, 8, 8, 32), 127, "int8")
        x[:, ::2, 1::2] = -128
        for values in (x, -1 - x):
            np.testing.assert_array_equal(computed(mod, [values], AVX2), run(mod, [values])[0])


def test_where_it_pays() -> None:
    weight = np.random.default_rng(0).integers(-128, 128, (32, 3, 3, 32)).astype("int8")
    assert integers_pay(weight, (1, 8, 8, 32))
    assert not integers_pay(weight, (1, 3, 3, 32)), "tiles reach far over the border"
    assert not integers_pay(weight[:, :2], (1, 8, 8, 32)), "no kernel of three rows"
    assert not integers_pay(np.full((16, 3, 3, 384), 127, "int8"), (1, 8, 8, 16)), "sums may leave int32"
    transformed = transform_integers(weight)
    assert transformed.shape == (4, 4, 4, 16, 8, 2)
    np.testing.assert_array_equal(transformed[0, 3, 1, 2, 3], 4 * weight[11, 0, 2, 4:6].astype("int16"))


def test_machines_with_more_than_avx2_do_not_need_it() -> None:
    _, mod = convolution((1, 8, 8, 32), 32, 0)
    assert kernel_names(mod, cpu_features("x86-64-v4")) == ["x86_qconv2d"]
    assert kernel_names(mod, cpu_features("x86-64-v4,+avx512vnni")) == ["x86_qconv2d"]
    assert kernel_names(mod, cpu_features("x86-64-v3,+avxvnni")) == ["x86_qconv2d"]


@pytest.mark.parametrize("options", [{"strides": (2, 2)}, {"dilation": (2, 2)}])
def test_others_keep_the_definition(options) -> None:
    _, mod = convolution((1, 9, 9, 16), 16, 0, (2, 2, 2, 2), **options)
    assert kernel_names(mod, cpu_features(AVX2)) == ["x86_qconv2d"]


def test_every_decision() -> None:
    layer, mod = convolution((1, 7, 12, 16), 32, 5)
    x = layer.random.integers(-128, 128, (1, 7, 12, 16)).astype("int8")
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
