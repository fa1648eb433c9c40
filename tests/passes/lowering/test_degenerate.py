"""Inputs and weights at their limits: integer models stay defined, and near the float ones."""

from __future__ import annotations

import numpy as np
import pytest

from tvmcompress.passes import LowerQDQ, Quantize, Range, calibrate, get_remarks
from tvmcompress.passes._tvm import tvm
from tvmcompress.passes.graph.interpreter import run

from ..small_models import samples
from .test_lower_operators import CASES, PARAMS, case_module

NAMES = ["attention", "causal", "layer norm", "rms norm", "group norm", "log softmax", "quotient", "sum", "maximum"]
NAMES += ["transposed", "signal", "volume", "rectifier with slopes"]
INPUTS = {"zero": lambda x: 0 * x, "constant": lambda x: 0 * x + 3, "tiny": lambda x: x * 1e-20, "huge": lambda x: x * 1e15}


def lowered(name: str, batches: list[list[np.ndarray]], params: dict[str, np.ndarray]) -> tuple[tvm.IRModule, tvm.IRModule]:
    """The float and the integer model."""
    mod = case_module(name, params)
    integer = LowerQDQ()(Quantize(calibrate(mod, batches))(mod))
    assert [r for r in get_remarks(integer) if r.pass_name == "LowerQDQ"] == []
    return mod, integer


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", NAMES)
def test_activations(name: str, kind: str) -> None:
    inputs = [INPUTS[kind](x).astype(np.float32) for x in samples(CASES[name][0], count=4)]
    mod, integer = lowered(name, [inputs], PARAMS)
    single = [x[:1] for x in inputs]
    [real], [found] = run(mod, single), run(integer, single)
    assert np.isfinite(found).all()
    if kind in ("zero", "constant"):
        # One value for each tensor is held well; where differences of equal things decide, nothing is.
        assert np.abs(found - real).max() <= 0.06 * max(np.abs(real).max(), 1e-3) or name == "group norm"


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_zero(name: str) -> None:
    inputs = samples(CASES[name][0], count=4)
    zeros = {key: 0 * value for key, value in PARAMS.items()}
    mod, integer = lowered(name, [inputs], zeros)
    single = [x[:1] for x in inputs]
    [real], [found] = run(mod, single), run(integer, single)
    assert np.isfinite(found).all()
    assert np.abs(found - real).max() <= 0.06 * max(np.abs(real).max(), 0.05)


def test_a_channel_of_zero_weights() -> None:
    """In a layer of each kind: the channel is its bias."""
    for name, weight, axis in (("signal", "c1.weight", 0), ("transposed", "t.weight", 1), ("volume", "v.weight", 0)):
        params = {key: value.copy() for key, value in PARAMS.items()}
        np.moveaxis(params[weight], axis, 0)[1] = 0
        inputs = samples(CASES[name][0], count=4)
        mod, integer = lowered(name, [inputs], params)
        single = [x[:1] for x in inputs]
        [real], [found] = run(mod, single), run(integer, single)
        assert np.ptp(found[:, 1]) == 0
        assert np.abs(found - real).max() <= 0.06 * np.abs(real).max()


def test_ranges_as_wide_as_float32() -> None:
    shape = CASES["attention"][0]
    mod = case_module("attention", PARAMS)
    ranges = {name: Range(-3e38, 3e38) for name in calibrate(mod, [samples(shape)])}
    [found] = run(LowerQDQ()(Quantize(ranges)(mod)), samples(shape, count=1))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("ends", [(-np.inf, 1.0), (0.0, np.inf), (np.nan, 1.0), (2.0, 1.0)])
def test_ranges_that_are_none(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Range(*ends)


def test_a_tensor_that_was_never_seen() -> None:
    """No range at all is refused, and that of an observer which saw nothing is defined."""
    shape = CASES["attention"][0]
    mod = case_module("attention", PARAMS)
    ranges = calibrate(mod, [samples(shape)])
    [first, *_] = ranges
    with pytest.raises(Exception, match=f"tensor {first} has no range"):
        Quantize({name: found for name, found in ranges.items() if name != first})(mod)
    [found] = run(LowerQDQ()(Quantize({**ranges, first: Range(0.0, 0.0)})(mod)), samples(shape, count=1))
    assert np.isfinite(found).all()
