"""Calibration by a compiled model, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import UserError, calibrate
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.quantization.observers import OBSERVERS, Observer
from tvmcompress.targets import get_target
from tvmcompress.targets.objects import compile_functions
from tvmcompress.targets.x86 import compile as compile_
from tvmcompress.targets.x86.statistics import TensorStatistics

from ...passes.small_models import model, samples, weights

pytestmark = pytest.mark.skipif(bool(get_target("x86").missing_tools()), reason="needs an x86 machine and a C++ compiler")

SHAPE = (1, 3, 9, 9)


def _net() -> tvm.IRModule:
    """Convolutions, which run channels-last, a pool, and a flattened image."""
    params = weights(a__weight=(8, 3, 3, 3), b__weight=(8, 8, 3, 3), d__weight=(32, 5))

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        op = relax.op
        first = op.nn.relu(op.nn.conv2d(x, p["a.weight"], padding=1))
        second = op.nn.relu(op.add(op.nn.conv2d(first, p["b.weight"], padding=1), first))
        pooled = op.nn.max_pool2d(second, (4, 4), (4, 4))
        return op.matmul(op.reshape(pooled, (1, 32)), p["d.weight"])

    return model(build, SHAPE, params=params)


@pytest.mark.parametrize(
    ("observer", "options"),
    [("minmax", {}), ("moving_average", {"momentum": 0.3}), ("percentile", {"percentile": 99.0}), ("mse", {}), ("entropy", {})],
)
def test_ranges_are_those_in_numpy(observer: str, options: dict[str, float]) -> None:
    mod, batches = _net(), [samples(SHAPE, count=40), samples(SHAPE, count=3, seed=5)]
    found, wanted = (calibrate(mod, batches, observer, options=options, statistics=make) for make in (TensorStatistics, None))
    assert found.keys() == wanted.keys()
    assert len(found) >= 4
    for name, range_ in wanted.items():
        assert (found[name].low, found[name].high) == pytest.approx((range_.low, range_.high), rel=1e-4, abs=1e-5), name


def test_the_compiled_model_is_used_and_only_what_is_asked_for_is_counted() -> None:
    asked = []

    def make(mod: tvm.IRModule, tensors: dict[str, bool]) -> TensorStatistics:
        asked.append(dict(tensors))
        return TensorStatistics(mod, tensors)

    overrides: dict = {"x0": ("minmax", {})}
    calibrate(_net(), [samples(SHAPE)], "mse", overrides=overrides, statistics=make)
    assert not asked[0].pop("x0")
    assert asked[0]
    assert all(asked[0].values())


def test_tensors_of_all_shapes_are_counted_by_one_function_of_their_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def follow(functions: dict, *arguments: object) -> dict:
        compiled.extend(functions)
        return compile_functions(functions, *arguments)

    monkeypatch.setattr(compile_, "compile_functions", follow)
    mod = _net()
    tensors = {var.name: True for var, _ in bindings(mod["main"])} | {"x0": True}
    found = TensorStatistics(mod, tensors)(samples(SHAPE))
    assert len(found) > 6
    assert len({histogram.count for histogram in found.values() if histogram is not None}) > 3
    assert len([name for name in compiled if "statistics" in name]) == 2  # images, and what is flattened
    assert "call_all" not in compiled


def test_threads_share_the_samples() -> None:
    mod = _net()
    one, two = (TensorStatistics(mod, {"x0": True, "conv2d": True}, threads=threads) for threads in (1, 2))
    for batch in (samples(SHAPE, count=9), samples(SHAPE, count=1)):
        found, wanted = two(batch), one(batch)
        assert found.keys() == wanted.keys()
        for name, histogram in wanted.items():
            seen = found[name]
            assert histogram is not None
            assert seen is not None
            np.testing.assert_array_equal(seen.bins(), histogram.bins())


def test_a_tensor_that_is_not_finite_is_named() -> None:
    mod, [x] = _net(), samples(SHAPE)
    with pytest.raises(UserError, match="takes values that are not finite") as compiled:
        calibrate(mod, [[np.sign(x) * np.float32(3e38)]], statistics=TensorStatistics)
    with pytest.raises(UserError) as in_numpy:
        calibrate(mod, [[np.sign(x) * np.float32(3e38)]])
    assert str(compiled.value) == str(in_numpy.value)


def test_samples_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"shape \(1, 3, 9, 9\)"):
        calibrate(_net(), [[np.zeros((2, 3, 8, 9), np.float32)]], statistics=TensorStatistics)


def test_an_observer_that_wants_values_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Largest(Observer):
        def update(self, values: np.ndarray) -> None:
            self.seen = values.shape

        def range(self):  # type: ignore[no-untyped-def]
            return self.seen

    def make(mod: tvm.IRModule, tensors: dict[str, bool]) -> None:
        raise AssertionError("compiled for nothing")

    monkeypatch.setitem(OBSERVERS._entries, "largest_of_test", Largest)

    found = calibrate(_net(), [samples(SHAPE, count=2)], "largest_of_test", statistics=make, tensors=["x0"])
    assert found == {"x0": (2, 3, 9, 9)}
