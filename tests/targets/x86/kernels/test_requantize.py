"""The short forms of requantization: the upper half of a product by its intrinsic, and the zero point before the shift."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from tvm.s_tir import Schedule

from tests.targets.x86.kernels.test_kernels import CPUS, Layer, check
from tests.targets.x86.kernels.test_products import computed
from tvmcompress.passes._tvm import te, tirx, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets.x86.host import tvm_target
from tvmcompress.targets.x86.kernels.intrinsics import HIGH, HIGH_LANES
from tvmcompress.targets.x86.kernels.requantize import shifts_simply


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[2]])
def test_upper_halves_of_all_signs_and_sizes(cpu) -> None:
    extremes = np.array([-(2**31), 2**31 - 1, -1, 0, 1, 2**30, -(2**30), 2**16 + 1], "int32")
    values = np.concatenate([extremes, np.random.default_rng(0).integers(-(2**31), 2**31, 248).astype("int32")])
    first, second = (np.ascontiguousarray(grid) for grid in np.meshgrid(values, np.abs(values[1:129].astype("int64"))))
    first = first.reshape(-1, HIGH_LANES)
    second = np.minimum(second, 2**31 - 1).astype("int32").reshape(-1, HIGH_LANES)
    a, b = te.placeholder(first.shape, "int32", name="a"), te.placeholder(first.shape, "int32", name="b")

    def element(i, j):
        product = a[i, j].astype("int64") * b[i, j].astype("int64") + tirx.const(1 << 30, "int64")
        return tirx.shift_right(product, tirx.const(31, "int64")).astype("int32")

    high = te.compute(first.shape, element, name="high")
    schedule = Schedule(tvm.IRModule({"main": te.create_prim_func([a, b, high]).with_attr("global_symbol", "main")}))
    schedule.tensorize(schedule.get_loops(schedule.get_sblock("high"))[-1], HIGH)
    library = tvm.tirx.build(schedule.mod, target=tvm_target(cpu, 1))
    tensors = [tvm.runtime.tensor(x) for x in (first, second, np.zeros_like(first))]
    library["main"](*tensors)
    expected = (first.astype("int64") * second.astype("int64") + 2**30) >> 31
    np.testing.assert_array_equal(tensors[-1].numpy(), expected)


def test_zero_point_before_the_shift_must_fit() -> None:
    weight, shift = np.full((1, 4), 127, "int8"), np.array([-20], "int32")
    largest = 255 * 127 * 4 + 2**19
    bias = np.array([2**31 - 1 - largest], "int32")
    assert shifts_simply(weight, bias, shift, "double")
    assert not shifts_simply(weight, bias, shift, "double", 1)
    assert shifts_simply(weight, bias - (128 << 20), shift, "double", -128)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("zero", [-128, 0, 127])
@pytest.mark.parametrize("limits", [(-128, 127), (-20, 90)])
def test_any_zero_point(cpu, zero, limits) -> None:
    layer = Layer((1, 5, 6, 16), 1)
    operands, max_shift = layer.operands((32, 1, 1, 16), 32, 16, "double")
    options = {"input_zero_point": -3, "output_zero_point": zero, "max_shift": max_shift, "qmin": limits[0], "qmax": limits[1]}
    check(layer, layer.finish(ops.qconv2d(layer.x, *operands, **options)), cpu)


@pytest.mark.parametrize("cpu", CPUS[:4])
@pytest.mark.parametrize(("tokens", "channels"), [(197, 64), (12, 64), (17, 48)])
def test_rows_that_no_tile_divides_keep_their_schedule(cpu, tokens, channels) -> None:
    layer = Layer((1, 1, tokens, 16), 2)
    operands, max_shift = layer.operands((channels, 1, 1, 16), channels, 16, "double")
    mod = layer.finish(ops.qconv2d(layer.x, *operands, input_zero_point=1, output_zero_point=-7, max_shift=max_shift))
    x = layer.sample()
    np.testing.assert_array_equal(computed(mod, [x], cpu), run(mod, [x])[0])
