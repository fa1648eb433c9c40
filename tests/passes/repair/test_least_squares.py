"""The layer solver against numpy.linalg.lstsq and against known weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from tvmcompress.passes.reference.convolution import convolve
from tvmcompress.passes.repair.im2col import LayerGeometry, gather
from tvmcompress.passes.repair.least_squares import solve


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


@pytest.mark.parametrize("low_high", [(0.0, np.inf), (-0.5, 0.5)])
def test_behind_a_clip_only_what_comes_through_counts(low_high: tuple[float, float]) -> None:
    """Against a general optimizer on the same convex problem."""
    rng = np.random.default_rng(3)
    x, target = rng.standard_normal((80, 4)), rng.standard_normal((80, 1))
    offset = 0.3 * rng.standard_normal((80, 1))
    low, high = low_high

    def loss(solution: np.ndarray) -> float:
        found = x @ solution[:4, None] + solution[4] + offset
        inside = np.where(target >= high, np.minimum(found - high, 0), found - target)
        wrong = np.where(target <= low, np.maximum(found - low, 0), inside)
        return float(np.square(wrong).sum())

    best = optimize.minimize(loss, np.zeros(5), method="BFGS").fun
    plain, plain_bias = solve(x, target, LayerGeometry(), np.zeros((4, 1)), np.zeros(1), 0.0, offset=offset)
    weight, bias = solve(x, target, LayerGeometry(), np.zeros((4, 1)), np.zeros(1), 0.0, offset=offset, clip=low_high)
    assert loss(np.r_[weight[:, 0], bias]) < 1.02 * best
    assert loss(np.r_[plain[:, 0], plain_bias]) > 1.05 * best


def test_the_offset_is_part_of_the_sum() -> None:
    rng = np.random.default_rng(4)
    x, offset, truth = rng.standard_normal((60, 5)), rng.standard_normal((60, 2)), rng.standard_normal((5, 2))
    weight, bias = solve(x, x @ truth + 0.5 + offset, LayerGeometry(), np.zeros((5, 2)), np.zeros(2), 0.0, offset=offset)
    np.testing.assert_allclose(weight, truth, atol=1e-6)
    np.testing.assert_allclose(bias, 0.5, atol=1e-6)


def test_noise_asks_for_a_larger_ridge() -> None:
    """With few samples, many inputs and much noise the old weights, which are the truth, are worth more than the fit."""
    rng = np.random.default_rng(5)
    truth = rng.standard_normal((30, 4))
    fresh = rng.standard_normal((500, 30))

    def error(noise: float, ridge: float | None) -> float:
        x = rng.standard_normal((60, 30))
        target = x @ truth + noise * rng.standard_normal((60, 4))
        weight, _ = solve(x, target, LayerGeometry(), truth, np.zeros(4), ridge)
        return float(np.square(fresh @ (weight - truth)).mean())

    assert error(3.0, None) < 0.5 * error(3.0, 1e-5)


@settings(max_examples=20, deadline=None)
@given(geometries(), st.integers(0, 2**16), st.integers(1, 60))
def test_picked_rows_are_rows_of_the_whole(case: tuple[LayerGeometry, int, int], seed: int, limit: int) -> None:
    geometry, channels, outputs = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, channels, 6, 7)).astype("float32")
    weight = rng.standard_normal((outputs, channels // geometry.groups, *geometry.kernel)).astype("float32")
    target = convolve(x, weight, geometry.strides, geometry.padding, geometry.dilation, geometry.groups)
    whole = gather(x, target, geometry)
    assert whole.inputs.shape[1] == len(whole.samples) == 3 * np.prod(target.shape[2:])
    some = gather(x, target, geometry, limit=limit)
    counts = np.bincount(some.samples, minlength=3)
    assert counts.min() == counts.max() == min(-(-limit // 3), np.prod(target.shape[2:]))
    for rows in (whole, some):
        matrix = weight.reshape(geometry.groups, outputs // geometry.groups, -1)
        got = rows.inputs @ matrix.transpose(0, 2, 1)
        np.testing.assert_allclose(got, rows.targets, rtol=1e-4, atol=1e-4)
    places = {tuple(row) for row in np.round(whole.targets, 4).transpose(1, 0, 2).reshape(len(whole.samples), -1).tolist()}
    picked = np.round(some.targets, 4).transpose(1, 0, 2).reshape(len(some.samples), -1).tolist()
    assert all(tuple(row) in places for row in picked)


@pytest.mark.parametrize("samples", [1, 7])
def test_blocks_cover_every_sample_once(monkeypatch: pytest.MonkeyPatch, samples: int) -> None:
    x = np.random.default_rng(0).standard_normal((samples, 3, 5, 5)).astype("float32")
    geometry = LayerGeometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    target = np.zeros((samples, 2, 5, 5), "float32")
    whole = gather(x, target, geometry).inputs
    monkeypatch.setattr("tvmcompress.passes.repair.im2col._BLOCK_BYTES", 4000)
    np.testing.assert_array_equal(gather(x, target, geometry).inputs, whole)


@pytest.mark.parametrize("clip", [(-np.inf, np.inf), (0.0, np.inf)])
def test_a_mask_leaves_each_output_its_own_unknowns(clip: tuple[float, float]) -> None:
    rng = np.random.default_rng(6)
    x, truth, mask = rng.standard_normal((300, 6)), rng.standard_normal((6, 4)), rng.random((6, 4)) < 0.5
    target = x @ truth + 0.3
    weight, bias = solve(x, target, LayerGeometry(), np.zeros((6, 4)), np.zeros(4), 0.0, clip=clip, mask=mask)
    assert (weight[~mask] == 0).all()
    for output in range(4):
        alone = x[:, mask[:, output]]
        size = (alone.shape[1], 1)
        same, same_bias = solve(alone, target[:, [output]], LayerGeometry(), np.zeros(size), np.zeros(1), 0.0, clip=clip)
        np.testing.assert_allclose(weight[mask[:, output], output], same[:, 0], atol=1e-6)
        np.testing.assert_allclose(bias[output], same_bias[0], atol=1e-6)
