"""Rows of a result from the rows that it needs, and from no others."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.integer.spatial_nets import Net, spatial_nets
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.patching.row_windows import RowWindow, row_window


@given(spatial_nets(), st.data())
@settings(max_examples=15, deadline=None)
def test_a_row_depends_on_the_rows_that_it_needs(net: Net, data: st.DataObject) -> None:
    """Change an input row and look which rows of the first layer change; a convolution may hide one that is needed."""
    net.emitted, net.value = net.emitted[:1], net.emitted[0][0]
    mod = net.module()
    window = row_window(net.emitted[0][1])
    assert window is not None
    x = net.input()
    before = run(mod, [x])[0]
    changed = data.draw(st.integers(0, x.shape[1] - 1))
    x[:, changed] ^= 0x55
    differs = np.flatnonzero((run(mod, [x])[0] != before).any((0, 2, 3)))
    for row in differs:
        first, behind = window.needs((int(row), int(row) + 1))
        assert first <= changed < behind


def test_padding_counts_rows_outside() -> None:
    window = RowWindow(extent=3, stride=2, before=1, height=9)
    assert [window.needs((i, i + 1)) for i in range(5)] == [(0, 2), (1, 4), (3, 6), (5, 8), (7, 9)]
    assert [window.padding((i, i + 1)) for i in range(5)] == [(1, 0), (0, 0), (0, 0), (0, 0), (0, 1)]
    assert (window.needs((1, 4)), window.padding((0, 5))) == ((1, 8), (1, 1))


def test_what_mixes_rows_has_no_window() -> None:
    x = relax.Var("x", relax.TensorType((1, 4, 4, 8), "int8"))
    assert row_window(relax.op.reshape(x, (1, 128))) is None
    assert row_window(x) is None
    batch = Net((2, 8, 8, 4), 0)
    batch.requantize()
    assert row_window(batch.emitted[0][1]) is None
    # A sum with a row that is broadcast over all rows depends on that row everywhere, but one over rows and columns has none.
    net = Net((1, 8, 8, 4), 0)
    net.add(net.param(np.zeros((1, 1, 8, 4), "int8")))
    window = row_window(net.emitted[0][1])
    assert window is not None
    assert window.operands == (0,)
