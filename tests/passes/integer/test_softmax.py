"""Integer softmax against floating point and against the plain form of the fixed-point algorithm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.fixed_point import exp_of_negative, reciprocal_of_one_plus
from tvmcompress.passes.integer.ops import exponentials, qmaskedsoftmax, qsoftmax
from tvmcompress.passes.integer.softmax import MAX_ELEMENTS
from tvmcompress.passes.numbers.affine import Range, affine_of_range

from . import running


def test_exponential() -> None:
    a = -np.linspace(0, 31.9, 3000)
    found = exp_of_negative((a * 2**26).astype(np.int64)) / 2.0**31
    np.testing.assert_allclose(found, np.exp(a), atol=2e-7)


def test_reciprocal() -> None:
    a = np.linspace(0, 0.999999, 2000)
    found = reciprocal_of_one_plus((a * 2**31).astype(np.int64)) / 2.0**31
    np.testing.assert_allclose(found, 1 / (1 + a), atol=3e-8)


@given(scale=st.floats(1e-6, 4.0))
@settings(max_examples=100, deadline=None)
def test_table(scale: float) -> None:
    table = exponentials(scale) / 2.0**31
    exact = np.exp(-scale * np.arange(256))
    # Beyond the radius of the representation an element counts as nothing; there it is below exp(-15).
    assert np.all((np.abs(table - exact) < 1e-6) | ((table == 0) & (exact < math.exp(-15))))


@given(
    rows=st.sampled_from([(1,), (3,), (1, 2, 2)]),
    size=st.integers(1, 40),
    scale=st.floats(0.001, 1.0),
    spread=st.sampled_from([1, 20, 128]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_softmax(rows: tuple[int, ...], size: int, scale: float, spread: int, seed: int) -> None:
    x = np.random.default_rng(seed).integers(-spread, spread, (*rows, size)).astype(np.int8)
    found = running.both(qsoftmax, [x], {"table": exponentials(scale)})
    real = np.exp(scale * (x.astype(float) - x.max(-1, keepdims=True)))
    real /= real.sum(-1, keepdims=True)
    assert np.abs((found.astype(float) + 128) / 256 - np.minimum(real, 255 / 256)).max() < 0.51 / 256


def test_many_equal_elements() -> None:
    x = np.full((1, 1000), 5, np.int8)
    found = running.both(qsoftmax, [x], {"table": exponentials(0.1)})
    assert set(found.reshape(-1).tolist()) == {-128}


@pytest.mark.parametrize("size", [4095, 4096, 20000])
def test_long_rows(size: int) -> None:
    """A few large elements among thousands; beyond 4095 the sum has more integer bits than TensorFlow Lite's."""
    x = np.random.default_rng(size).integers(-128, -60, (2, size)).astype(np.int8)
    x[:, :3] = [[127, 120, 110]]
    found = running.both(qsoftmax, [x], {"table": exponentials(0.1)})
    real = np.exp(0.1 * (x.astype(float) - 127))
    real /= real.sum(-1, keepdims=True)
    assert np.abs((found.astype(float) + 128) / 256 - real).max() < 0.6 / 256


def test_no_worse_than_floating_point_between_integers() -> None:
    """The noise of the integer operator is that of rounding its two ends."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((200, 64)) * 2
    affine = affine_of_range(Range(float(real.min()), float(real.max())))
    x = affine.quantize(real)

    def snr(result: np.ndarray) -> float:
        return float(10 * np.log10(np.square(exact).sum() / np.square(result - exact).sum()))

    exact = special.softmax(real, 1)
    rounded = np.minimum(np.rint(special.softmax(affine.dequantize(x), 1) * 256), 255) / 256
    found = (running.both(qsoftmax, [x], {"table": exponentials(affine.scale)}).astype(float) + 128) / 256
    assert snr(found) >= snr(rounded) - 0.05


@given(
    case=st.sampled_from([((2, 3, 5), (2, 3, 5)), ((2, 3, 5), (3, 5)), ((2, 3, 5), (2, 1, 5)), ((1, 7), (1,))]),
    share=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    scale=st.floats(0.001, 1.0),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_masked(case: tuple, share: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, mask = rng.integers(-128, 128, case[0]).astype(np.int8), rng.random(case[1]) < share
    table = exponentials(scale)
    found = running.both(qmaskedsoftmax, [x, mask], {"table": table})
    kept = np.broadcast_to(mask, x.shape)
    assert (found[~kept] == -128).all()
    for row in np.ndindex(x.shape[:-1]):
        if kept[row].any():
            # Masked elements play no part: the softmax of the others alone.
            alone = running.run(running.module(qsoftmax, [x[row][kept[row]]], {"table": table}), [x[row][kept[row]]])[0]
            np.testing.assert_array_equal(found[row][kept[row]], alone)


def test_all_kept() -> None:
    x = np.random.default_rng(0).integers(-128, 128, (2, 9)).astype(np.int8)
    table = {"table": exponentials(0.05)}
    masked = running.both(qmaskedsoftmax, [x, np.ones((1, 9), bool)], table)
    np.testing.assert_array_equal(masked, running.both(qsoftmax, [x], table))


def test_too_many_elements() -> None:
    x = relax.Var("x", relax.TensorType((1, MAX_ELEMENTS + 1), "int8"))
    table = relax.Var("table", relax.TensorType((256,), "int32"))
    with pytest.raises(ValueError, match="at most"):
        relax.BlockBuilder().normalize(qsoftmax(x, table))
