"""Networks whose first layers run patch by patch give the same bytes, and never hold the large tensors whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.integer.spatial_nets import Net, spatial_nets
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.analysis import count_macs
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.module_params import static_shape
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.graph.remarks import get_remarks
from tvmcompress.passes.patching.patch_execution import PatchExecution, find_prefix, prefixes


@given(spatial_nets(), st.data())
@settings(max_examples=30, deadline=None)
def test_every_byte_stays(net: Net, data: st.DataObject) -> None:
    mod, x = net.module(), net.input()
    found = list(prefixes(mod["main"]))
    if not found:
        return
    prefix = data.draw(st.sampled_from(found))
    patches = data.draw(st.integers(2, prefix.height))
    made = PatchExecution(prefix.end.name, patches)(mod)
    assert get_remarks(made) == []
    np.testing.assert_array_equal(run(made, [x])[0], run(mod, [x])[0])
    assert count_macs(made) - count_macs(mod) == prefix.extra_macs(patches)
    rows = prefix.patches(patches)
    assert (rows[0][0], rows[-1][1]) == (0, prefix.height)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(rows))


def _chain() -> Net:
    """3x3, 3x3 with stride 2, 1x1, on 16 rows."""
    net = Net((1, 16, 8, 4), 1)
    net.convolution(8, 3, 1, (1, 1))
    net.convolution(8, 3, 2, (1, 1))
    net.convolution(4, 1, 1, (0, 0))
    return net


def test_the_patches_of_a_chain() -> None:
    mod = _chain().module()
    made = PatchExecution("layer2", 4)(mod)
    shapes = {var.name: static_shape(var)[1] for var, _ in bindings(made["main"])}
    # Two rows of the end each; those of the middle; five rows behind a stride of 2, four where the padding is one of them.
    assert [shapes[f"layer2.patch{i}"] for i in range(4)] == [2, 2, 2, 2]
    assert [shapes[f"layer1.patch{i}"] for i in range(4)] == [2, 2, 2, 2]
    assert [shapes[f"layer0.patch{i}"] for i in range(4)] == [4, 5, 5, 5]
    assert [shapes[f"x.rows{i}"] for i in range(4)] == [5, 7, 7, 6]
    assert "layer0" not in shapes
    # 19 rows of the first convolution instead of 16, each of 8 columns, 8 channels, 9 * 4 products.
    assert count_macs(made) - count_macs(mod) == 3 * 8 * 8 * 9 * 4


def test_a_shortcut_inside_is_cut_with_the_rest() -> None:
    net = Net((1, 12, 6, 4), 2)
    net.convolution(4, 3, 1, (1, 1))
    shortcut = net.value
    net.convolution(4, 3, 1, (1, 1))
    net.add(shortcut)
    net.convolution(4, 3, 2, (1, 1))
    mod, x = net.module(), net.input()
    prefix = find_prefix(mod["main"], next(var for var, _ in bindings(mod["main"]) if var.name == "layer3"))
    assert prefix is not None
    assert [var.name for var in prefix.layers] == ["layer0", "layer1", "layer2", "layer3"]
    made = PatchExecution("layer3", 3)(mod)
    names = [var.name for var, _ in bindings(made["main"])]
    # The shortcut is cut as soon as it is computed, so that a convolution with the sum behind it can be one kernel.
    assert names.index("layer0.rows1") < names.index("layer1.patch1")
    np.testing.assert_array_equal(run(made, [x])[0], run(mod, [x])[0])


def test_a_tensor_that_is_read_elsewhere_ends_the_prefix() -> None:
    net = _chain()
    net.values, first = net.values, net.emitted[0][0]
    net.value = net.builder.normalize(relax.Tuple([net.value, first]))
    mod = tvm.IRModule({"main": net.module()["main"]})
    assert [prefix.end.name for prefix in prefixes(mod["main"])] == ["layer0"]


@pytest.mark.parametrize(
    ("end", "patches", "why"), [("none", 2, "no such tensor"), ("layer2", 1, "8 rows cannot be cut into 1")]
)
def test_what_cannot_be_cut_is_left_with_a_remark(end: str, patches: int, why: str) -> None:
    mod = _chain().module()
    made = PatchExecution(end, patches)(mod)
    assert tvm_ffi.structural_equal(made["main"], mod["main"])
    (remark,) = get_remarks(made)
    assert why in remark.message
