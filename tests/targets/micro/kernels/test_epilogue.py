"""The arithmetic behind an accumulator: where it fits a word, and how halves below zero are rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.targets.micro.kernels.test_kernels import module
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets import get_target
from tvmcompress.targets.kernels.layers import NotRepresentable
from tvmcompress.targets.micro.kernels.constant_channels import settle_constant_channels
from tvmcompress.targets.micro.kernels.depthwise import Depthwise, depthwise_3x3
from tvmcompress.targets.micro.kernels.epilogue import Epilogue


@pytest.mark.parametrize(("rounding", "gain"), [("double", 2), ("single", 1)])
def test_sums_beyond_a_word_are_refused(rounding: str, gain: int) -> None:
    """The largest sum is that of inputs of -128 under weights of one sign."""
    epilogue = Epilogue(rounding, 0)
    count = 1000
    weights = np.full((2, count), 3, np.int8)
    weights[1] = -3
    room = (1 << 31) // gain - 128 * 3 * count
    for sign in (1, -1):
        epilogue.check_range(weights, np.array([0, sign * (room - 1)], np.int64))
        with pytest.raises(NotRepresentable):
            epilogue.check_range(weights, np.array([sign * room, 0], np.int64))
    with pytest.raises(NotRepresentable):
        epilogue.check_range(np.full((1, (1 << 24) // gain), -1, np.int8), np.zeros(1, np.int64))
    epilogue.check_range(np.zeros((0, 4), np.int8), np.zeros(0, np.int64))


@pytest.mark.skipif(bool(get_target("cortex-m4").missing_tools()), reason="needs the Cortex-M tool chain")
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
@pytest.mark.parametrize(("zero", "least"), [(3, -128), (-128, -128), (3, 3), (0, -20)])
def test_halves_below_zero(target: str, zero: int, least: int, tmp_path: Path) -> None:
    """All sums from -512 to 508 by factors of a power of two: every second or fourth result is a half."""
    params = {
        "weight": np.diag([1, -1, 2, 4]).astype(np.int8).reshape(4, 1, 1, 4),
        "bias": np.array([0, 1, 0, 0], np.int32),
        "multiplier": np.full(4, 1 << 30, np.int32),
        "shift": np.array([-2, -2, -3, -4], np.int32),
    }
    options = {"input_zero_point": 0, "output_zero_point": zero, "qmin": least, "max_shift": -2}
    shape = (1, 16, 16, 4)
    mod = module(lambda x, *p: ops.qconv2d(x, *p, **options), [shape], params)
    x = np.repeat(np.arange(-128, 128, dtype=np.int8), 4).reshape(shape)
    expected = run(mod, [x])[0]
    np.testing.assert_array_equal(get_target(target).build(mod, tmp_path).run([x])[0], expected)


@pytest.mark.parametrize(("band", "inplace"), [(6, True), (8, True), (5, False), (3, False), (1, False)])
def test_depthwise_of_several_bands_is_not_done_in_place(band: int, inplace: bool) -> None:
    """A band is read with a row of that before it, which would have been written over."""
    layer = Depthwise(6, 6, 4, 6, 6, 1, 1, 1, 0, Epilogue("double", 0), band)
    assert ("tvmcompress.inplace" in depthwise_3x3(layer).attrs) == inplace


def test_depthwise_that_makes_the_map_smaller_is_not_done_in_place() -> None:
    layer = Depthwise(6, 6, 4, 3, 3, 2, 0, 0, 0, Epilogue("double", 0), 3)
    assert "tvmcompress.inplace" not in depthwise_3x3(layer).attrs


@pytest.mark.parametrize(("rounding", "refused"), [("double", [0, -1]), ("single", [0, -1])])
def test_factors_without_room_are_refused(rounding: str, refused: list[int]) -> None:
    """But for a factor of nought, whose shift says nothing."""
    epilogue = Epilogue(rounding, 0, shared_shift=False)
    for shift in refused:
        shifts = np.array([-4, shift], np.int32)
        with pytest.raises(NotRepresentable):
            epilogue.parameters(np.array([1 << 30, 1 << 30], np.int32), shifts)
    if rounding == "double":
        words = epilogue.parameters(np.array([1 << 30, 0], np.int32), np.array([-4, 0], np.int32))
        assert words.tolist() == [[1 << 30, 0], [1 << 28, 0]]


def test_sums_beyond_a_word_settle_nothing() -> None:
    """A channel whose greatest accumulator does not fit 32 bits is left as it is."""
    weights, bias = np.full((1, 4), 1, np.int8), np.array([(1 << 31) - 1], np.int64).astype(np.int32)
    numbers = weights, bias, np.array([1], np.int32), np.array([-31], np.int32)
    for kept, old in zip(settle_constant_channels(*numbers, Epilogue("double", 0)), numbers):
        np.testing.assert_array_equal(kept, old)
