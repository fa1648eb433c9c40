"""Integer rectifier with slopes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.ops import qprelu
from tvmcompress.passes.integer.requantize import quantize_multiplier

from . import exact, running

ZERO = st.integers(-128, 127)


@given(
    shapes=st.sampled_from([((1, 3, 2, 4), (4,)), ((2, 5), (1, 5)), ((3, 2), (3, 2)), ((4,), ())]),
    factors=st.tuples(st.floats(0.01, 3.0), st.floats(1e-5, 0.05)),
    zeros=st.tuples(ZERO, ZERO, ZERO),
    rounding=st.sampled_from(["double", "single"]),
    limits=st.sampled_from([(-128, 127), (-3, 90)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_rectifier(
    shapes: tuple,
    factors: tuple[float, float],
    zeros: tuple[int, int, int],
    rounding: str,
    limits: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x, slope = (np.asarray(rng.integers(-128, 128, shape), np.int8) for shape in shapes)
    above, below = (quantize_multiplier(factor, rounding) for factor in factors)

    def build(a: relax.Expr, b: relax.Expr) -> relax.Expr:
        return qprelu(
            a,
            b,
            input_zero_point=zeros[0],
            slope_zero_point=zeros[1],
            output_zero_point=zeros[2],
            multiplier=above[0],
            shift=above[1],
            negative_multiplier=below[0],
            negative_shift=below[1],
            qmin=limits[0],
            qmax=limits[1],
            rounding=rounding,
        )

    found = running.both(build, [x, slope])
    slopes = np.broadcast_to(slope, found.shape)
    for index in np.ndindex(found.shape):
        value = int(x[index]) - zeros[0]
        if value >= 0:
            expected = exact.requantize(value, *above, zeros[2], *limits, rounding)
        else:
            expected = exact.requantize(value * (int(slopes[index]) - zeros[1]), *below, zeros[2], *limits, rounding)
        assert int(found[index]) == expected
