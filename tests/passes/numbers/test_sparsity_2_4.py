"""Two of every four weights: packing and unpacking against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmcompress.passes.numbers.sparsity_2_4 import has_2_4_sparsity, pack_2_4, unpack_2_4


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random int8 weights of which at most two of every four are not zero; some groups have fewer."""
    weight = rng.integers(-128, 128, (int(np.prod(shape)) // 4, 4)).astype(np.int8)
    for group in weight:
        group[rng.permutation(4)[: rng.integers(2, 5)]] = 0
    return weight.reshape(shape)


@given(seed=st.integers(0, 2**31), shape=st.lists(st.integers(1, 4), min_size=0, max_size=3), groups=st.integers(1, 5))
def test_packing_is_undone(seed: int, shape: list[int], groups: int) -> None:
    weight = sparse(np.random.default_rng(seed), (*shape, 4 * groups))
    assert has_2_4_sparsity(weight)
    values, indices = pack_2_4(weight)
    count = weight.size // 4
    assert (values.dtype, values.shape) == (np.int8, (2 * count,))
    assert (indices.dtype, indices.shape) == (np.uint8, (-(-count // 2),))
    for group in range(count):
        code = int(indices[group // 2]) >> 4 * (group % 2) & 15
        assert code & 3 < code >> 2
        wanted = np.zeros(4, np.int8)
        wanted[[code & 3, code >> 2]] = values[2 * group : 2 * group + 2]
        np.testing.assert_array_equal(weight.reshape(-1, 4)[group], wanted)
    np.testing.assert_array_equal(unpack_2_4(values, indices, weight.shape), weight)


@pytest.mark.parametrize(
    ("weight", "has_it"),
    [
        ([[0, 5, 0, 7]], True),
        ([[0, 0, 0, 0, 1, 2, 0, 0]], True),
        ([[1, 2, 3, 0]], False),
        ([[0, 0, 1, 2, 3, 0, 0, 0]], True),
        ([[0, 0, 0, 1, 1, 1, 1, 0]], False),
        ([[1, 0, 1]], False),
        ([[1, 0], [1, 0]], False),
    ],
)
def test_what_has_the_pattern(weight: list[list[int]], has_it: bool) -> None:
    assert has_2_4_sparsity(np.array(weight, np.int8)) == has_it
