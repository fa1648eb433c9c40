"""Pools and means on Cortex-A against the NumPy reference of the operators, on the emulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.targets.arm.kernels.test_kernels import needs_tools, on_cores
from tests.targets.kernels.layers import assert_kernel, module
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.integer import ops
from tvmcompress.targets.arm.kernels.averages import MOST_PIXELS, reciprocals


@needs_tools
@on_cores
@pytest.mark.parametrize(
    ("height", "width", "channels", "window", "strides", "padding"),
    [
        (8, 7, 32, (3, 3), (2, 2), (1, 1, 1, 1)),
        (5, 6, 20, (2, 3), (1, 2), (0, 1, 1, 0)),
        (4, 4, 16, (5, 5), (1, 1), (2, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize("clipped", [True, False])
def test_max_pool(
    height: int,
    width: int,
    channels: int,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, ...],
    clipped: bool,
    core: str,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    limits = {"qmin": -50, "qmax": 100} if clipped else {}
    shape, numbers = (1, height, width, channels), {"pool_size": window, "strides": strides, "padding": padding, **limits}
    mod = module(lambda x: ops.qmaxpool(x, **numbers), [shape], {})
    artifact = assert_kernel(mod, "maxpool", tmp_path, rng, core)
    # What lies outside is no zero and no least byte.
    least = np.full((1, height, width, channels), -127, np.int8)
    np.testing.assert_array_equal(artifact.run([least])[0], run(mod, [least])[0])


@needs_tools
@pytest.mark.parametrize(
    ("height", "width", "channels", "window", "strides", "padding"),
    [
        (8, 7, 32, (3, 3), (2, 2), (1, 1, 1, 1)),
        (5, 6, 20, (2, 3), (1, 2), (0, 1, 1, 0)),
        (15, 17, 16, (15, 17), (1, 1), (0, 0, 0, 0)),
        (25, 5, 64, (25, 5), (1, 1), (0, 0, 0, 0)),
    ],
)
def test_average_pool(
    height: int,
    width: int,
    channels: int,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, ...],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    shape, numbers = (1, height, width, channels), {"pool_size": window, "strides": strides, "padding": padding}
    mod = module(lambda x: ops.qavgpool(x, **numbers, qmin=-128, qmax=100), [shape], {})
    artifact = assert_kernel(mod, "average", tmp_path, rng, "cortex-a72")
    for least, most in ((-128, -127), (127, 128), (-2, 2)):
        x = rng.integers(least, most, shape).astype("int8")
        np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])


def test_reciprocals_divide_exactly() -> None:
    """Every sum of every count that the kernels of averages divide."""
    sums = np.arange(1 << 15, dtype=np.int64)
    for count, (factor, shift) in enumerate(reciprocals(1, MOST_PIXELS), 1):
        assert 0 < factor < 1 << 16
        np.testing.assert_array_equal((sums * factor) >> shift, sums // count)


@needs_tools
@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((1, 8, 8, 64), (1, 2)), ((1, 49, 20), (1,)), ((1, 3, 16, 16, 16), (2, 3)), ((1, 2, 23, 23, 17), (2, 3))],
)
def test_mean(
    shape: tuple[int, ...], axes: tuple[int, ...], rounding: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    multiplier, shift = ops.mean_multiplier(1518500250, 0, int(np.prod([shape[axis] for axis in axes])))
    numbers = {"multiplier": multiplier, "shift": shift, "output_zero_point": 5, "rounding": rounding}
    mod = module(lambda x: ops.qmean(x, axes=axes, keepdims=False, input_zero_point=-17, **numbers), [shape], {})
    artifact = assert_kernel(mod, "mean", tmp_path, rng, "cortex-a72")
    for value in (-128, 127):
        x = np.full(shape, value, np.int8)
        np.testing.assert_array_equal(artifact.run([x])[0], run(mod, [x])[0])
