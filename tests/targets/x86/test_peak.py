"""The machine's peak: what it is measured on computes what it says, and a better instruction does more."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes._tvm import tvm
from tvmcompress.targets.x86.host import cpu_features, host_cpu, tvm_target
from tvmcompress.targets.x86.kernels.intrinsics import DOTS, best_dot
from tvmcompress.targets.x86.peak import _DEPTH, _product, peak_products
from tvmcompress.targets.x86.space import choice_of, schedule_as

FEATURES = cpu_features(host_cpu())


@pytest.mark.parametrize("product", ["", best_dot(FEATURES, 16).broadcast])
def test_the_product_is_computed(product) -> None:
    dot = next((dot for dot in DOTS if dot.broadcast == product), None)
    mod = _product(dot, dot.lanes if dot else 8, 2, 3)
    library = tvm.tirx.build(schedule_as(mod, choice_of(mod).default).mod, target=tvm_target("native", 1))
    random = np.random.default_rng(0)
    x, w, out = (tuple(int(dim) for dim in param.ty.shape) for param in mod["main"].params)
    kinds = ("float32", "float32") if dot is None else (dot.activation, dot.weight)
    x, w = random.integers(0, 9, x).astype(kinds[0]), random.integers(-9, 9, w).astype(kinds[1])
    result = tvm.runtime.tensor(np.zeros(out, "float32" if dot is None else "int32"))
    getattr(library, "mod", library)["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(w), result)
    rows = w.astype("int64").transpose(1, 3, 0, 2).reshape(_DEPTH, -1)  # vectors, groups, lanes, group
    np.testing.assert_array_equal(result.numpy(), np.broadcast_to(x.astype("int64") @ rows, out))


def test_it_is_a_number_of_this_century() -> None:
    # Not a timing: nothing between 10**8 and 10**14 products a second would be noticed.
    assert 1e8 < peak_products("") < 1e14
    assert peak_products("") == peak_products("")
