"""Integer concatenation, padding, resizing."""

from __future__ import annotations

import numpy as np
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax, tirx
from tvmcompress.passes.integer.ops import IDENTITY, qconcat, qpad, qresize
from tvmcompress.passes.integer.requantize import quantize_multiplier
from tvmcompress.passes.integer.shape import _constant

from . import exact, running


@given(
    axis=st.integers(0, 3),
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    factors=st.lists(st.floats(0.05, 4.0), min_size=4, max_size=4),
    rounding=st.sampled_from(["double", "single"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
def test_concat(axis: int, sizes: list[int], factors: list[float], rounding: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for size in sizes:
        shape = [2, 3, 2, 2]
        shape[axis] = size
        parts.append(rng.integers(-128, 128, shape).astype(np.int8))
    zeros = rng.integers(-128, 128, len(sizes)).tolist()
    pairs = [quantize_multiplier(f, rounding) for f in factors[: len(sizes)]]
    pairs[0], zeros[0] = IDENTITY, 9

    def build(*tensors: relax.Expr) -> relax.Expr:
        return qconcat(
            tensors,
            axis=axis,
            input_zero_points=zeros,
            multipliers=[q for q, _ in pairs],
            shifts=[s for _, s in pairs],
            output_zero_point=9,
            rounding=rounding,
        )

    found = running.both(build, parts)
    expected = [
        np.vectorize(lambda v, z=zero, p=pair: exact.requantize(int(v) - z, *p, 9, -128, 127, rounding))(part)
        for part, zero, pair in zip(parts, zeros, pairs)
    ]
    np.testing.assert_array_equal(found, np.concatenate(expected, axis))
    first = [slice(None)] * 4
    first[axis] = slice(0, sizes[0])
    np.testing.assert_array_equal(found[tuple(first)], parts[0])


def test_pad() -> None:
    x = np.arange(12).reshape(1, 2, 3, 2).astype(np.int8)
    found = running.both(lambda v: qpad(v, pad_width=[0, 0, 1, 2, 0, 1, 0, 0], value=-7), [x])
    np.testing.assert_array_equal(found, np.pad(x, [(0, 0), (1, 2), (0, 1), (0, 0)], constant_values=-7))


@pytest.mark.parametrize("indices", [[0, 0, 1, 1, 2, 2], [0, 1, 2], [0, 2], [0, 0, 0, 1, 1, 2, 2], [2, 2, 0, 1], [1]])
def test_nearest(indices: list[int]) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (1, 3, 3, 2)).astype(np.int8)
    found = running.both(lambda v: qresize(v, rows=indices, columns=[0, 0, 2]), [x])
    np.testing.assert_array_equal(found, x[:, indices][:, :, [0, 0, 2]])


@given(seed=st.integers(0, 1000), rows=st.integers(1, 7), columns=st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_linear(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (1, 4, 5, 2)).astype(np.int8)
    row, column = rng.integers(0, 4, rows), rng.integers(0, 5, columns)
    down, right = rng.integers(0, 1025, rows), rng.integers(0, 1025, columns)
    found = running.both(lambda v: qresize(v, rows=row, columns=column, row_weights=down, column_weights=right), [x])
    for _, i, j, k in np.ndindex(found.shape):
        total = 0
        for r, a in ((row[i], 1024 - down[i]), (min(row[i] + 1, 3), down[i])):
            for c, b in ((column[j], 1024 - right[j]), (min(column[j] + 1, 4), right[j])):
                total += int(x[0, r, c, k]) * int(a) * int(b)
        assert found[0, i, j, k] == exact.truncated(total + (2**19 if total > 0 else -(2**19)), 2**20)


@pytest.mark.parametrize("weights", [[0], [0, 1025], [-1, 0]])
def test_weights_that_do_not_fit(weights: list[int]) -> None:
    x = relax.Var("x", relax.TensorType((1, 4, 4, 1), "int8"))
    call = qresize(x, rows=[0, 1], columns=[0], row_weights=weights, column_weights=[0])
    with pytest.raises(ValueError, match="one weight in"):
        relax.BlockBuilder().normalize(call)


def test_indices_that_are_a_quotient_or_a_multiple_need_no_comparisons() -> None:
    i = tirx.Var("i", "int32")
    for values, expected in (
        ([3] * 5, tirx.const(3, "int32")),
        ([2, 3, 4, 5], tirx.floordiv(i, 1) + 2),
        ([0, 0, 0, 1, 1, 1, 2, 2], tirx.floordiv(i, 3) + 0),
        ([1, 5, 9], i * 4 + 1),
    ):
        assert tvm_ffi.structural_equal(_constant(values, i), expected)


def test_indices_outside() -> None:
    x = relax.Var("x", relax.TensorType((1, 4, 4, 1), "int8"))
    with pytest.raises(ValueError, match="reach outside"):
        relax.BlockBuilder().normalize(qresize(x, rows=[0, 4], columns=[0]))
