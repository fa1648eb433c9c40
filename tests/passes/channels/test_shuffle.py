"""Channel shuffles: the order that three operators make of an axis, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.channels.shuffle import find_shuffles
from tvmcompress.passes.graph.interpreter import run

from ..small_models import model

op = relax.op


@pytest.mark.parametrize(
    ("shape", "middle", "axes"),
    [
        ((1, 12, 5, 5), (1, 3, 4, 5, 5), (0, 2, 1, 3, 4)),
        ((1, 12, 5, 5), (1, 4, 3, 5, 5), (0, 2, 1, 3, 4)),
        ((2, 7, 12), (2, 7, 2, 3, 2), (0, 1, 4, 2, 3)),
        ((2, 7, 12), (2, 7, 2, 3, 2), (0, 1, 3, 4, 2)),
    ],
)
def test_the_order(shape: tuple[int, ...], middle: tuple[int, ...], axes: tuple[int, ...]) -> None:
    mod = model(lambda x, params: op.reshape(op.permute_dims(op.reshape(x, middle), axes), shape), shape)
    (shuffle,) = find_shuffles(mod["main"]).values()
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert shape[shuffle.axis] == 12
    np.testing.assert_array_equal(x.take(shuffle.order, shuffle.axis), run(mod, [x])[0])


@pytest.mark.parametrize(
    ("middle", "axes", "after"),
    [
        ((1, 3, 4, 5, 5), (0, 1, 2, 4, 3), (1, 12, 5, 5)),
        ((1, 3, 4, 5, 5), (0, 2, 1, 3, 4), (1, 4, 15, 5)),
        ((1, 3, 4, 25), (0, 2, 1, 3), (1, 12, 5, 5)),
    ],
    ids=["another axis moves", "merged otherwise", "not split alone"],
)
def test_what_is_no_shuffle(middle: tuple[int, ...], axes: tuple[int, ...], after: tuple[int, ...]) -> None:
    mod = model(lambda x, params: op.reshape(op.permute_dims(op.reshape(x, middle), axes), after), (1, 12, 5, 5))
    assert find_shuffles(mod["main"]) == {}
