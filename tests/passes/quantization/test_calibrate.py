"""Calibration."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from tvmcompress.passes import Range, UserError, calibrate
from tvmcompress.passes._tvm import relax, tvm

from ..small_models import model, samples, weights

SHAPE = (1, 3, 8, 8)


def _net() -> tvm.IRModule:
    params = weights(c__weight=(4, 3, 3, 3), c__bias=(1, 4, 1, 1))

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        return relax.op.nn.relu(relax.op.add(relax.op.nn.conv2d(x, p["c.weight"], padding=1), p["c.bias"]))

    return model(build, SHAPE, params=params)


def test_ranges_are_those_of_the_values() -> None:
    from tvmcompress.passes.graph.interpreter import run

    mod, [x] = _net(), samples(SHAPE, count=70)
    done: list[int] = []
    ranges = calibrate(mod, [[x[:50]], [x[50:]]], on_progress=done.append)
    output = run(mod, [x])[0]
    assert ranges == {
        "x0": Range(float(x.min()), float(x.max())),
        "c.relu": Range(float(output.min()), float(output.max())),
    }
    assert done[-1] == 70
    assert done == sorted(done)


def test_batches_are_streamed() -> None:
    """A batch is asked for only after the one before is done with."""
    alive: list[int] = []

    def batches() -> Iterator[list[np.ndarray]]:
        for index in range(5):
            alive.append(index)
            yield samples(SHAPE, count=2, seed=index)

    seen: list[int] = []
    calibrate(_net(), batches(), on_progress=lambda done: seen.append(len(alive)))
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_memory_does_not_grow_with_the_number_of_samples(observer: str) -> None:
    def batches(count: int) -> Iterator[list[np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in range(count // 100):
            gc.collect()  # what waits for its collection is not held
            yield [rng.standard_normal((100, 1, 4, 4)).astype(np.float32)]

    params = weights(c__weight=(2, 1, 3, 3))
    net = model(lambda x, p: relax.op.nn.relu(relax.op.nn.conv2d(x, p["c.weight"])), (1, 1, 4, 4), params=params)
    calibrate(net, batches(200), observer)
    peaks = []
    gc.freeze()  # what other tests hold is not looked through each time
    try:
        for count in (1_000, 10_000):
            tracemalloc.start()
            calibrate(net, batches(count), observer)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    finally:
        gc.unfreeze()
    # All samples together would be 640,000 bytes more.
    assert peaks[1] < peaks[0] + 100_000


def test_averages_are_of_batches_where_samples_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [samples(SHAPE, count=6, seed=seed) for seed in range(3)]
    stacked = calibrate(_net(), batches, "moving_average")
    monkeypatch.setattr("tvmcompress.passes.graph.interpreter._LARGE", 1)
    alone = calibrate(_net(), batches, "moving_average")
    for name, found in alone.items():
        assert (found.low, found.high) == pytest.approx((stacked[name].low, stacked[name].high), rel=1e-5)


def test_observers_by_pattern() -> None:
    batches = [samples(SHAPE, seed=seed) for seed in range(3)]
    averaged = calibrate(_net(), batches, "moving_average", options={"momentum": 0.5})
    mixed = calibrate(_net(), batches, overrides={"c.*": ("moving_average", {"momentum": 0.5}), "*.relu": ("mse", {})})
    assert mixed["c.relu"] == averaged["c.relu"]
    assert mixed["x0"] == calibrate(_net(), batches)["x0"] != averaged["x0"]
    with pytest.raises(UserError, match="no observer 'best'"):
        calibrate(_net(), batches, overrides={"none": ("best", {})})


def test_chosen_tensors() -> None:
    assert set(calibrate(_net(), [samples(SHAPE)], tensors=["c"])) == {"c"}


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one sample"),
        ([[np.zeros((0, 3, 8, 8), np.float32)]], "at least one sample"),
        ([[np.zeros((2, 3, 9, 8), np.float32)]], "do not fit"),
        ([[np.zeros((2, 3, 8, 8), np.float64)]], "do not fit"),
        ([[np.full((2, 3, 8, 8), np.nan, np.float32)]], "not finite"),
        ([[np.zeros(SHAPE, np.float32)] * 2], "do not fit"),
        ([["x"]], "NumPy arrays"),
    ],
)
def test_bad_samples(batches: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        calibrate(_net(), batches)


def test_values_that_overflow() -> None:
    with pytest.raises(UserError, match=r"c\.relu takes values that are not finite"):
        calibrate(_net(), [[np.full(SHAPE, 3e38, np.float32)]])


def test_unknown_observer() -> None:
    with pytest.raises(UserError, match="no observer"):
        calibrate(_net(), [samples(SHAPE)], "guess")
