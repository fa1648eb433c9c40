"""Integer pooling and means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.ops import mean_multiplier, qavgpool, qmaxpool, qmean
from tvmcompress.passes.integer.requantize import quantize_multiplier

from . import exact, running


@st.composite
def _pools(draw: st.DrawFn) -> dict:
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    return {
        "kernel": kernel,
        "size": [draw(st.integers(k, k + 5)) for k in kernel],
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": [draw(st.integers(0, kernel[axis % 2] - 1)) for axis in range(4)],
        "limits": draw(st.sampled_from([(-128, 127), (-10, 11)])),
        "seed": draw(st.integers(0, 1000)),
    }


@pytest.mark.parametrize("make", [qavgpool, qmaxpool])
@given(case=_pools())
@settings(max_examples=15, deadline=None)
def test_pool(make: object, case: dict) -> None:
    rng = np.random.default_rng(case["seed"])
    x = rng.integers(-128, 128, (1, *case["size"], 3)).astype(np.int8)
    low, high = case["limits"]
    (kh, kw), (sh, sw), (top, left, _, _) = case["kernel"], case["strides"], case["padding"]
    geometry = {"pool_size": (kh, kw), "strides": (sh, sw), "padding": case["padding"]}
    found = running.both(lambda v: make(v, **geometry, qmin=low, qmax=high), [x])
    for n, i, j, k in np.ndindex(found.shape):
        rows = slice(max(i * sh - top, 0), max(i * sh - top + kh, 0))
        columns = slice(max(j * sw - left, 0), max(j * sw - left + kw, 0))
        window = x[n, rows, columns, k].astype(int)
        if make is qmaxpool:
            value = int(window.max())
        else:
            total, count = int(window.sum()), window.size
            value = exact.truncated(total + count // 2 if total > 0 else total - count // 2, count)
        assert found[n, i, j, k] == max(low, min(high, value))


@given(
    shape=st.sampled_from([(1, 4, 5, 3), (1, 7, 7, 2), (2, 6)]),
    keepdims=st.booleans(),
    factor=st.floats(0.01, 20.0),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    rounding=st.sampled_from(["double", "single"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
def test_mean(shape: tuple, keepdims: bool, factor: float, zeros: tuple, rounding: str, seed: int) -> None:
    axes = [1, 2] if len(shape) == 4 else [1]
    x = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    multiplier, shift = mean_multiplier(*quantize_multiplier(factor), int(np.prod([shape[a] for a in axes])))

    def build(v: relax.Expr) -> relax.Expr:
        return qmean(
            v,
            axes=axes,
            keepdims=keepdims,
            input_zero_point=zeros[0],
            output_zero_point=zeros[1],
            multiplier=multiplier,
            shift=shift,
            rounding=rounding,
        )

    found = running.both(build, [x])
    total = (x.astype(int) - zeros[0]).sum(tuple(axes), keepdims=keepdims)
    assert found.shape == total.shape
    for index in np.ndindex(found.shape):
        assert found[index] == exact.requantize(int(total[index]), multiplier, shift, zeros[1], -128, 127, rounding)
    # The factor contains the division.
    real = np.clip(factor * total / np.prod([shape[a] for a in axes]) + zeros[1], -128, 127)
    assert np.abs(found - real).max() <= 1.0


def test_padding_must_be_smaller_than_the_window() -> None:
    x = relax.Var("x", relax.TensorType((1, 4, 4, 1), "int8"))
    with pytest.raises(ValueError, match="not smaller than the window"):
        relax.BlockBuilder().normalize(qavgpool(x, pool_size=(2, 2), strides=(2, 2), padding=(2, 0, 0, 0)))


@pytest.mark.parametrize("count", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("shift", [-31, -30, -28, -3, 0, 5])
def test_a_mean_divides_as_tensorflow_lite_does(count: int, shift: int) -> None:
    # The shift of the result must stay one that requantization knows, however small the factor is.
    multiplier = 0x5A5A5A5A
    bits = min(count.bit_length() - 1, 32, 31 + shift)
    assert mean_multiplier(multiplier, shift, count) == ((multiplier << bits) // count, shift - bits)


@pytest.mark.parametrize("make", [qavgpool, qmaxpool])
def test_nothing_is_padded_by_default(make: Callable[..., relax.Call]) -> None:
    call = make(relax.Var("x", relax.TensorType((1, 4, 4, 1), "int8")), pool_size=[2, 2], strides=[1, 1])
    assert [int(size) for size in call.attrs.padding] == [0, 0, 0, 0]
