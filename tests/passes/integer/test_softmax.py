"""Integer softmax against floating point and against the plain form of the fixed-point algorithm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.fixed_point import exp_of_negative, reciprocal_of_one_plus
from tvmcompress.passes.integer.ops import exponentials, qsoftmax

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


def test_too_many_elements() -> None:
    x = relax.Var("x", relax.TensorType((1, 5000), "int8"))
    table = relax.Var("table", relax.TensorType((256,), "int32"))
    with pytest.raises(ValueError, match="at most"):
        relax.BlockBuilder().normalize(qsoftmax(x, table))
