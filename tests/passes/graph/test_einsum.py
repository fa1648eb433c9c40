"""Einstein sums as matrix products, against `numpy.einsum`."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.einsum import matmul_form

SIZES = {"b": 2, "h": 3, "i": 4, "j": 5, "d": 6, "e": 2}


def call(subscripts: str, *shapes: tuple[int, ...]) -> relax.Call:
    operands = [relax.Var(f"x{i}", relax.TensorType(shape, "float32")) for i, shape in enumerate(shapes)]
    return relax.op.einsum(relax.Tuple(operands), subscripts)


@pytest.mark.parametrize(
    "subscripts",
    ["ij,jd->id", "ij,jd->di", "ij,dj->id", "bhid,bhjd->bhij", "bhij,bjhd->bihd", "bid,hde->bihe", "bid,bid->b", "id,d->i"],
)
def test_the_product_is_the_sum(subscripts: str) -> None:
    sides = subscripts.partition("->")[0].split(",")
    rng = np.random.default_rng(0)
    first, second = (rng.integers(-9, 9, [SIZES[i] for i in side]).astype(np.float64) for side in sides)
    form = matmul_form(call(subscripts, first.shape, second.shape))
    assert form is not None
    one, two = (x.transpose(axes).reshape(shape) for x, axes, shape in zip((first, second), form.axes, form.shapes))
    found = (one @ two).reshape(form.product).transpose(form.result)
    np.testing.assert_array_equal(found, np.einsum(subscripts, first, second))


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij->ji", [(4, 5)]),
        ("ij,jd,de->ie", [(4, 5), (5, 6), (6, 2)]),
        ("ii,ij->ij", [(4, 4), (4, 5)]),
        ("ij,d->j", [(4, 5), (6,)]),
        ("i,j->ij", [(4,), (5,)]),
    ],
    ids=["one", "three", "twice on one", "summed on one", "no depth"],
)
def test_what_is_no_product(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    assert matmul_form(call(subscripts, *shapes)) is None
