"""The layer solver against numpy.linalg.lstsq and against known weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes.least_squares import LayerGeometry, rows, solve
from tvmcompress.passes.meanings.convolution import convolve


@st.composite
def geometries(draw: st.DrawFn) -> tuple[LayerGeometry, int, int]:
    """A geometry with its channels in and out."""
    groups = draw(st.sampled_from([1, 2, 3]))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(2))
    geometry = LayerGeometry(
        kernel=kernel,
        strides=tuple(draw(st.integers(1, 2)) for _ in range(2)),
        padding=tuple(draw(st.integers(0, 2)) for _ in range(4)),
        dilation=tuple(draw(st.integers(1, 2)) for _ in range(2)),
        groups=groups,
    )
    return geometry, groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))


@settings(max_examples=30, deadline=None)
@given(geometries(), st.integers(0, 2**16))
def test_known_convolution_is_found_again(case: tuple[LayerGeometry, int, int], seed: int) -> None:
    geometry, channels, outputs = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((30, channels, 7, 8)).astype("float32")
    weight = rng.standard_normal((outputs, channels // geometry.groups, *geometry.kernel)).astype("float32")
    bias = rng.standard_normal(outputs).astype("float32")
    target = convolve(x, weight, geometry.strides, geometry.padding, geometry.dilation, geometry.groups)
    target = target + bias[:, None, None]
    found, found_bias = solve(x, target, geometry, np.zeros_like(weight), np.zeros_like(bias), ridge=0)
    got = convolve(x, found, geometry.strides, geometry.padding, geometry.dilation, geometry.groups)
    np.testing.assert_allclose(got + found_bias[:, None, None], target, atol=2e-2)


def test_dense_equals_lstsq() -> None:
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((50, 6)), rng.standard_normal((50, 3))
    weight, bias = solve(x, target, LayerGeometry(), np.zeros((6, 3)), np.zeros(3), ridge=0)
    expected, *_ = np.linalg.lstsq(np.c_[x, np.ones(50)], target, rcond=None)
    np.testing.assert_allclose(np.r_[weight, bias[None]], expected, rtol=1e-5, atol=1e-6)


def test_ridge_pulls_towards_the_old_weights() -> None:
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((50, 6)), rng.standard_normal((50, 3))
    old = rng.standard_normal((6, 3))
    weak, _ = solve(x, target, LayerGeometry(), old, np.zeros(3), ridge=1e-3)
    strong, _ = solve(x, target, LayerGeometry(), old, np.zeros(3), ridge=1e3)
    assert np.abs(strong - old).max() < 0.01 < np.abs(weak - old).max()


def test_dead_input_keeps_its_weights_and_stays_finite() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6))
    x[:, 2] = 0
    old = rng.standard_normal((6, 3))
    weight, bias = solve(x, x @ old, LayerGeometry(), old, np.zeros(3), ridge=1e-6)
    np.testing.assert_allclose(weight[2], old[2], rtol=1e-6)
    assert np.isfinite(bias).all()


@pytest.mark.parametrize("samples", [1, 7])
def test_blocks_cover_every_sample_once(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    monkeypatch.setattr("tvmcompress.passes.least_squares._BLOCK_BYTES", 4000)
    x = np.arange(samples * 3 * 5 * 5, dtype="float32").reshape(samples, 3, 5, 5)
    geometry = LayerGeometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    blocks = list(rows(x, geometry))
    assert [index for part, _ in blocks for index in range(samples)[part]] == list(range(samples))
    assert sum(block.shape[1] for _, block in blocks) == samples * 25
    assert samples == 1 or len(blocks) > 1
