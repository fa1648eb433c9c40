"""The short forms of requantization, with the zero point before the shift."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tests.targets.x86.kernels.test_kernels import CPUS, Layer, check
from tests.targets.x86.kernels.test_products import computed
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets.x86.kernels.requantize import shifts_simply


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
