"""Integer sums, products, changes of scale and tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.ops import add_parameters, qadd, qlut, qmul, qrequantize, qsub
from tvmcompress.passes.integer.requantize import quantize_multiplier

from . import exact, running

ZERO = st.integers(-128, 127)
SCALE = st.floats(0.001, 2.0)
SHAPES = st.sampled_from(
    [((1, 3, 2, 4), (1, 3, 2, 4)), ((1, 2, 3, 4), (4,)), ((1, 2, 3, 4), (1, 1, 1, 4)), ((2, 1), (1, 3)), ((5,), ())]
)


def _data(shapes: tuple, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]


@given(
    shapes=SHAPES,
    scales=st.tuples(SCALE, SCALE, SCALE),
    zeros=st.tuples(ZERO, ZERO, ZERO),
    minus=st.booleans(),
    rounding=st.sampled_from(["double", "single"]),
    limits=st.sampled_from([(-128, 127), (3, 90)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_sum(
    shapes: tuple,
    scales: tuple[float, float, float],
    zeros: tuple[int, int, int],
    minus: bool,
    rounding: str,
    limits: tuple[int, int],
    seed: int,
) -> None:
    a, b = _data(shapes, seed)
    factors = add_parameters(*scales, rounding)

    def build(x: relax.Expr, y: relax.Expr) -> relax.Expr:
        make = qsub if minus else qadd
        return make(
            x,
            y,
            input1_zero_point=zeros[0],
            input2_zero_point=zeros[1],
            output_zero_point=zeros[2],
            qmin=limits[0],
            qmax=limits[1],
            rounding=rounding,
            **factors,
        )

    found = running.both(build, [a, b])
    wide_a, wide_b = np.broadcast_arrays(a, b)
    common = 2 * max(scales[:2])
    pairs = [quantize_multiplier(f, rounding) for f in (scales[0] / common, scales[1] / common)]
    last = quantize_multiplier(common / (2**20 * scales[2]), rounding)
    for index in np.ndindex(found.shape):
        first, second = (
            exact.multiply((int(value[index]) - zero) << 20, *pair, rounding)
            for value, zero, pair in zip((wide_a, wide_b), zeros, pairs)
        )
        total = first - second if minus else first + second
        assert found[index] == exact.requantize(total, *last, zeros[2], *limits, rounding)


@given(
    shapes=SHAPES,
    scales=st.tuples(SCALE, SCALE, SCALE),
    zeros=st.tuples(ZERO, ZERO, ZERO),
    rounding=st.sampled_from(["double", "single"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
def test_product(shapes: tuple, scales: tuple, zeros: tuple, rounding: str, seed: int) -> None:
    a, b = _data(shapes, seed)
    multiplier, shift = quantize_multiplier(scales[0] * scales[1] / scales[2], rounding)

    def build(x: relax.Expr, y: relax.Expr) -> relax.Expr:
        zero = dict(zip(("input1_zero_point", "input2_zero_point", "output_zero_point"), zeros))
        return qmul(x, y, **zero, multiplier=multiplier, shift=shift, rounding=rounding)

    found = running.both(build, [a, b])
    product = (a.astype(int) - zeros[0]) * (b.astype(int) - zeros[1])
    for index in np.ndindex(found.shape):
        expected = exact.requantize(int(product[index]), multiplier, shift, zeros[2], -128, 127, rounding)
        assert found[index] == expected


@given(factor=st.floats(0.001, 100.0), zeros=st.tuples(ZERO, ZERO), rounding=st.sampled_from(["double", "single"]))
@settings(max_examples=15, deadline=None)
def test_change_of_scale(factor: float, zeros: tuple[int, int], rounding: str) -> None:
    x = np.arange(-128, 128).astype(np.int8)
    multiplier, shift = quantize_multiplier(factor, rounding)
    found = running.both(
        lambda v: qrequantize(
            v,
            input_zero_point=zeros[0],
            output_zero_point=zeros[1],
            multiplier=multiplier,
            shift=shift,
            qmin=-100,
            qmax=100,
            rounding=rounding,
        ),
        [x],
    )
    expected = [
        exact.requantize(v - zeros[0], multiplier, shift, zeros[1], -100, 100, rounding) for v in range(-128, 128)
    ]
    assert found.tolist() == expected


def test_table() -> None:
    rng = np.random.default_rng(1)
    table = rng.integers(-128, 128, 256).astype(np.int8)
    x = np.arange(-128, 128).astype(np.int8).reshape(4, 64)
    found = running.both(qlut, [x], {"table": table})
    assert found.reshape(-1).tolist() == table.tolist()


def test_shapes_that_do_not_broadcast() -> None:
    a, b = (relax.Var(n, relax.TensorType(s, "int8")) for n, s in (("a", (2, 3)), ("b", (2, 4))))
    with pytest.raises(ValueError, match="do not broadcast"):
        relax.BlockBuilder().normalize(
            qmul(a, b, input1_zero_point=0, input2_zero_point=0, output_zero_point=0, multiplier=0, shift=0)
        )


def test_a_table_is_for_activations() -> None:
    x, table = (relax.Var(name, relax.TensorType((256,), dtype)) for name, dtype in (("x", "int32"), ("table", "int8")))
    with pytest.raises(ValueError, match="qlut: the input must be int8, got int32"):
        relax.BlockBuilder().normalize(qlut(x, table))
