"""Integer quotient."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.ops import qdivide, reciprocals
from tvmcompress.passes.numbers.affine import Affine

from . import running

ZERO = st.integers(-128, 127)
SHAPES = st.sampled_from([((1, 3, 2, 4), (1, 3, 2, 4)), ((1, 2, 3, 4), (1, 2, 3, 1)), ((1, 1), (3, 4)), ((5,), ())])


@given(
    shapes=SHAPES,
    scales=st.tuples(st.floats(0.001, 2.0), st.floats(0.001, 2.0), st.floats(0.01, 0.5)),
    zeros=st.tuples(ZERO, ZERO, ZERO),
    limits=st.sampled_from([(-128, 127), (-20, 90)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_quotient(
    shapes: tuple, scales: tuple[float, ...], zeros: tuple[int, int, int], limits: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = (np.asarray(rng.integers(-128, 128, shape), np.int8) for shape in shapes)
    table = reciprocals(scales[0], Affine(scales[1], zeros[1]), scales[2])

    def build(x: relax.Expr, y: relax.Expr, t: relax.Expr) -> relax.Expr:
        attrs = {"input1_zero_point": zeros[0], "output_zero_point": zeros[2]}
        return qdivide(x, y, t, qmin=limits[0], qmax=limits[1], **attrs)

    found = running.both(build, [a, b], {"table": table})
    wide_a, wide_b = np.broadcast_arrays(a, b)
    for index in np.ndindex(found.shape):
        dividend, divisor = int(wide_a[index]) - zeros[0], int(wide_b[index]) - zeros[1]
        if divisor == 0:
            real = float(np.sign(dividend)) * 1e9
        else:
            real = dividend * scales[0] / (divisor * scales[1]) / scales[2]
        expected = min(max(real + zeros[2], limits[0]), limits[1])
        # Half a step, and what the table's 23 bits or more and the cap of the reciprocal leave.
        assert abs(int(found[index]) - expected) <= 0.5001


def test_division_by_zero() -> None:
    table = reciprocals(0.1, Affine(0.1, 5), 0.02)
    values = np.array([-128, 0, 127], np.int8)

    def build(x: relax.Expr, y: relax.Expr, t: relax.Expr) -> relax.Expr:
        return qdivide(x, y, t, input1_zero_point=0, output_zero_point=0)

    found = running.both(build, [values, np.full(3, 5, np.int8)], {"table": table})
    assert found.tolist() == [-128, 0, 127]
