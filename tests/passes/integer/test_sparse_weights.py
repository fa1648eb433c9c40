"""Weights of which two of every four are stored: the operator against NumPy and compiled."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.ops import sparse_weight
from tvmcompress.passes.numbers.sparsity_2_4 import pack_2_4

from ..numbers.test_sparsity_2_4 import sparse
from . import running


@pytest.mark.parametrize("shape", [(4,), (5, 12), (3, 2, 2, 4), (7, 3, 3, 20)])
def test_the_operator(shape: tuple[int, ...]) -> None:
    weight = sparse(np.random.default_rng(len(shape)), shape)
    values, indices = pack_2_4(weight)
    got = running.both(lambda v, i: sparse_weight(v, i, shape=shape), [values, indices])
    np.testing.assert_array_equal(got, weight)


@pytest.mark.parametrize(("shape", "count", "words"), [((2, 6), 6, "groups of 4"), ((2, 8), 6, "values")])
def test_wrong_types_are_refused(shape: tuple[int, ...], count: int, words: str) -> None:
    values = relax.Var("values", relax.TensorType((count,), "int8"))
    indices = relax.Var("indices", relax.TensorType((2,), "uint8"))
    with pytest.raises(Exception, match=words):
        relax.BlockBuilder().normalize(sparse_weight(values, indices, shape=shape))
