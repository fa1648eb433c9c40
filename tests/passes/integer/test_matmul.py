"""Integer matrix product of two tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.ops import largest_depth, qmatmul
from tvmcompress.passes.integer.requantize import quantize_multiplier

from . import exact, running

ZERO = st.integers(-128, 127)
SHAPES = [
    ((3, 5), (5, 4)),
    ((2, 3, 4), (2, 4, 2)),
    ((1, 2, 3, 6), (1, 2, 6, 3)),
    ((2, 1, 2, 3), (3, 3, 2)),
    ((4, 3), (2, 3, 1)),
]


@given(
    shapes=st.sampled_from(SHAPES),
    zeros=st.tuples(ZERO, ZERO, ZERO),
    factor=st.floats(1e-6, 4.0),
    rounding=st.sampled_from(["double", "single"]),
    limits=st.sampled_from([(-128, 127), (-7, 90)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_matmul(
    shapes: tuple,
    zeros: tuple[int, int, int],
    factor: float,
    rounding: str,
    limits: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes)
    multiplier, shift = quantize_multiplier(factor, rounding)

    def build(x: relax.Expr, y: relax.Expr) -> relax.Expr:
        return qmatmul(
            x,
            y,
            input1_zero_point=zeros[0],
            input2_zero_point=zeros[1],
            output_zero_point=zeros[2],
            multiplier=multiplier,
            shift=shift,
            qmin=limits[0],
            qmax=limits[1],
            rounding=rounding,
        )

    found = running.both(build, [a, b])
    sums = np.matmul(a.astype(object) - zeros[0], b.astype(object) - zeros[1])
    expected = [exact.requantize(int(s), multiplier, shift, zeros[2], *limits, rounding) for s in sums.reshape(-1)]
    assert found.reshape(-1).tolist() == expected


def test_the_longest_sum_stays_in_32_bits() -> None:
    depth = largest_depth(-128, -128)
    assert 255 * 255 * depth < 2**31 <= 255 * 255 * (depth + 1)
    multiplier, shift = quantize_multiplier(2.0**-24)

    def build(x: relax.Expr, y: relax.Expr) -> relax.Expr:
        zeros = {"input1_zero_point": -128, "input2_zero_point": -128, "output_zero_point": 0}
        return qmatmul(x, y, multiplier=multiplier, shift=shift, **zeros)

    ends = [np.full((1, depth), 127, np.int8), np.full((depth, 1), 127, np.int8)]
    assert running.both(build, ends).item() == 127
    longer = [np.zeros((1, depth + 1), np.int8), np.zeros((depth + 1, 1), np.int8)]
    with pytest.raises(Exception, match="could leave 32 bits"):
        running.module(build, longer)
