"""Integer normalization against Python integers and against floating point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.fixed_point import reciprocal_root
from tvmcompress.passes.integer.normalize import MAX_OFFSET
from tvmcompress.passes.integer.ops import fraction_bits, integer_epsilon, qnormalize
from tvmcompress.passes.integer.requantize import quantize_multiplier
from tvmcompress.passes.numbers.affine import Range, affine_of_range

from . import exact, running


@given(value=st.integers(1, 2**62 - 1))
@settings(max_examples=300, deadline=None)
def test_reciprocal_root(value: int) -> None:
    root, exponent = (int(part[0]) for part in reciprocal_root(np.array([value], np.int64)))
    assert 2**29 <= root <= 2**30
    # root * sqrt(value) in Python integers: exact to 64 bits and more.
    scaled = math.isqrt((root * root * value) << 64) / 2.0 ** (32 + exponent)
    assert abs(scaled - 1) < 4e-9


def test_reciprocal_root_of_powers_of_four() -> None:
    values = np.array([4**k for k in range(31)], np.int64)
    root, exponent = reciprocal_root(values)
    np.testing.assert_allclose(root * 2.0**-exponent, 1 / np.sqrt(values.astype(float)), rtol=4e-9)


def slow(
    x: np.ndarray, factor: np.ndarray, offset: np.ndarray, axes: tuple[int, ...], attrs: dict
) -> np.ndarray:
    """The definition with Python integers; the root by `math.isqrt`, which may differ in the last place."""
    count = math.prod(x.shape[axis] for axis in axes)
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    wide = [np.broadcast_to(v, x.shape) for v in (factor, offset)]
    wide = [np.moveaxis(v, axes, range(-len(axes), 0)).reshape(-1, count) for v in wide]
    out = np.zeros((moved.size // count, count), np.int64)
    for r, row in enumerate(moved.reshape(-1, count).tolist()):
        values = row if attrs["centred"] else [v - attrs["input_zero_point"] for v in row]
        total = sum(values) if attrs["centred"] else 0
        spread = max(count * sum(v * v for v in values) - total * total + attrs["epsilon"], 1)
        for k, v in enumerate(values):
            d = count * v - total
            y = round(d / math.sqrt(spread) * 2 ** fraction_bits(count))
            acc = y * int(wide[0][r, k]) + int(wide[1][r, k])
            limits = attrs["output_zero_point"], attrs["qmin"], attrs["qmax"], attrs["rounding"]
            out[r, k] = exact.requantize(acc, attrs["multiplier"], attrs["shift"], *limits)
    return np.moveaxis(out.reshape(moved.shape), range(-len(axes), 0), axes)


SHAPES = [
    ((2, 3, 8), (2,), (1, 1, 8)),
    ((1, 5), (1,), (1, 1)),
    ((1, 2, 6, 3), (1, 2), (1, 1, 1, 3)),
    ((2, 4, 2, 3), (1, 3), (1, 1, 2, 3)),
    ((1, 3, 1), (2,), (1, 1, 1)),
]


@example(SHAPES[0], True, (0, 0), 0.03125, 0.015625, 3, "double", (-128, 127), 0)
@given(
    case=st.sampled_from(SHAPES),
    centred=st.booleans(),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    scale=st.floats(1e-3, 1.0),
    step=st.floats(0.005, 0.2),
    spread=st.sampled_from([0, 3, 128]),
    rounding=st.sampled_from(["double", "single"]),
    limits=st.sampled_from([(-128, 127), (0, 60)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_normalize(
    case: tuple,
    centred: bool,
    zeros: tuple[int, int],
    scale: float,
    step: float,
    spread: int,
    rounding: str,
    limits: tuple[int, int],
    seed: int,
) -> None:
    shape, axes, small = case
    rng = np.random.default_rng(seed)
    middle = int(rng.integers(-128, 128))
    x = np.clip(rng.integers(-spread, spread + 1, shape) + middle, -128, 127).astype(np.int8)
    factor = rng.integers(-32767, 32768, small).astype(np.int16)
    offset = rng.integers(-(2**26), 2**26, small).astype(np.int32)
    count = math.prod(shape[axis] for axis in axes)
    multiplier, shift = quantize_multiplier(1.2 / 32767 * 2.0 ** -fraction_bits(count) / step, rounding)
    attrs = {
        "centred": centred,
        "input_zero_point": zeros[0],
        "epsilon": integer_epsilon(1e-5, scale, count),
        "output_zero_point": zeros[1],
        "multiplier": multiplier,
        "shift": shift,
        "qmin": limits[0],
        "qmax": limits[1],
        "rounding": rounding,
    }
    found = running.both(
        lambda *args: qnormalize(*args, axes=axes, **attrs), [x], {"factor": factor, "offset": offset}
    )
    expected = slow(x, factor, offset, axes, attrs)
    # Both roots are exact to 2**-28; where that moves y over a half the results are one step of y apart.
    close = max(1, math.ceil(32767 * multiplier * 2.0 ** (shift - 31)))
    assert np.abs(found - expected).max() <= close
    assert (found == expected).mean() >= 0.9
    # What it stands for, in floating point, with the epsilon that was rounded to whole steps.
    smallest = scale**2 / count**2
    real = x.astype(float) * scale if centred else (x.astype(float) - zeros[0]) * scale
    mean = real.mean(axes, keepdims=True) if centred else 0.0
    power = np.square(real - mean).mean(axes, keepdims=True)
    y = (real - mean) / np.sqrt(np.maximum(power + attrs["epsilon"] * smallest, smallest))
    unit = 1.2 / 32767
    result = y * factor * unit + offset * unit * 2.0 ** -fraction_bits(count)
    steps = np.clip(result / step + zeros[1], *limits)
    assert np.abs(found - steps).max() <= 0.51 + 1.2 * 2.0 ** -fraction_bits(count) / step


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 768, 1024, 1025, 65536, 10**6])
def test_normalized_values_fit_16_bits(count: int) -> None:
    bits = fraction_bits(count)
    assert math.sqrt(count) * 2**bits <= 2**15 < math.sqrt(count) * 2 ** (bits + 1) * 1.42


@pytest.mark.parametrize("shape", [(1, 40000), (1, 3)])
def test_the_ends_of_the_range(shape: tuple[int, ...]) -> None:
    """One element far from all others, the largest factor and the largest offset."""
    x = np.full(shape, -128, np.int8)
    x[0, 0] = 127
    multiplier, shift = quantize_multiplier(2.0**-24)
    count = shape[1]
    expected = np.sqrt(count - 1) * 2 ** fraction_bits(count) * 32767
    for sign in (1, -1):
        found = running.both(
            lambda *args: qnormalize(
                *args,
                axes=(1,),
                centred=True,
                input_zero_point=0,
                epsilon=0,
                output_zero_point=0,
                multiplier=multiplier,
                shift=shift,
            ),
            [x],
            {"factor": np.full((1, 1), sign * 32767, np.int16), "offset": np.full((1, 1), sign * MAX_OFFSET, np.int32)},
        )
        assert abs(found[0, 0] - np.clip(sign * (expected + MAX_OFFSET) / 2**24, -128, 127)) <= 1


def test_refusals() -> None:
    x = relax.Var("x", relax.TensorType((1, 4), "int8"))
    factor = relax.Var("f", relax.TensorType((1, 3), "int16"))
    offset = relax.Var("o", relax.TensorType((1, 3), "int32"))
    attrs = {"input_zero_point": 0, "epsilon": 1, "output_zero_point": 0, "multiplier": 1, "shift": 0, "centred": True}
    for axes, message in (((1,), "does not fit"), ((2,), "do not fit shape")):
        with pytest.raises(Exception, match=message):
            relax.BlockBuilder().normalize(qnormalize(x, factor, offset, axes=axes, **attrs))


def test_no_worse_than_floating_point_between_integers() -> None:
    """Layer normalization of 768 channels: the noise of the integer operator is that of rounding its two ends."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((64, 768)) * rng.uniform(0.3, 3, (64, 1)) + rng.standard_normal((64, 1))
    gamma, beta = rng.uniform(0.2, 2, 768), rng.standard_normal(768) * 0.3

    def normal(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * gamma + beta

    exact = normal(real)
    ends = [affine_of_range(Range(float(v.min()), float(v.max()))) for v in (real, exact)]
    x = ends[0].quantize(real)
    rounded = ends[1].dequantize(ends[1].quantize(normal(ends[0].dequantize(x).astype(np.float64))))
    step = gamma.max() / 32767
    unit = step * 2.0 ** -fraction_bits(768)
    multiplier, shift = quantize_multiplier(unit / ends[1].scale)
    params = {
        "factor": np.rint(gamma / step).astype(np.int16)[None],
        "offset": np.rint(beta / unit).astype(np.int32)[None],
    }
    found = running.both(
        lambda *args: qnormalize(
            *args,
            axes=(1,),
            centred=True,
            input_zero_point=ends[0].zero_point,
            epsilon=integer_epsilon(1e-5, ends[0].scale, 768),
            output_zero_point=ends[1].zero_point,
            multiplier=multiplier,
            shift=shift,
        ),
        [x],
        params,
    )

    def snr(result: np.ndarray) -> float:
        return float(10 * np.log10(np.square(exact).sum() / np.square(result - exact).sum()))

    assert snr(ends[1].dequantize(found)) >= snr(rounded) - 0.05
