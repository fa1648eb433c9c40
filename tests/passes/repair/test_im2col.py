"""Weights in the form in which rows meet them; the rows themselves are tested with the solver that needs them."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes.reference.convolution import convolve
from tvmcompress.passes.repair.im2col import LayerGeometry, folded_weight, gather, unfolded_weight


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_weights_as_rows_meet_them(groups: int) -> None:
    rng = np.random.default_rng(0)
    geometry = LayerGeometry((3, 2), (2, 1), (1, 1, 0, 1), (1, 1), groups)
    x, weight = rng.standard_normal((3, 4, 7, 8)), rng.standard_normal((8, 4 // groups, 3, 2))
    y = convolve(x, weight, geometry.strides, geometry.padding, geometry.dilation, groups)
    rows, matrix = gather(x, y, geometry, limit=20), unfolded_weight(weight, geometry)
    np.testing.assert_allclose(rows.inputs @ matrix.transpose(0, 2, 1), rows.targets)
    np.testing.assert_array_equal(folded_weight(matrix, geometry, weight.shape), weight)


def test_the_weight_of_a_matrix_product_as_rows_meet_it() -> None:
    weight = np.arange(12.0).reshape(4, 3)
    matrix = unfolded_weight(weight, LayerGeometry())
    np.testing.assert_array_equal(matrix[0], weight.T)
    np.testing.assert_array_equal(folded_weight(matrix, LayerGeometry(), weight.shape), weight)
