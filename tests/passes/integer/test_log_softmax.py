"""Integer logarithm of the softmax against floating point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.log_softmax import FRACTION_BITS
from tvmcompress.passes.integer.ops import LOGARITHMS, differences, exponentials, qlogsoftmax
from tvmcompress.passes.integer.requantize import quantize_multiplier

from . import running


def found(x: np.ndarray, scale: float, step: float, zero: int, rounding: str = "double") -> np.ndarray:
    """By code and by reference, which are equal."""
    multiplier, shift = quantize_multiplier(2.0**-FRACTION_BITS / step, rounding)
    attrs = {"output_zero_point": zero, "multiplier": multiplier, "shift": shift, "rounding": rounding}
    tables = {"e": exponentials(scale), "d": differences(scale), "l": LOGARITHMS}
    return running.both(lambda *args: qlogsoftmax(*args, **attrs), [x], tables)


@given(
    rows=st.sampled_from([(1,), (3,), (1, 2, 2)]),
    size=st.integers(1, 40),
    scale=st.floats(0.001, 1.0),
    step=st.floats(0.01, 0.3),
    zero=st.integers(-20, 127),
    spread=st.sampled_from([1, 20, 128]),
    rounding=st.sampled_from(["double", "single"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=20, deadline=None)
def test_log_softmax(
    rows: tuple[int, ...], size: int, scale: float, step: float, zero: int, spread: int, rounding: str, seed: int
) -> None:
    x = np.random.default_rng(seed).integers(-spread, spread, (*rows, size)).astype(np.int8)
    shifted = scale * (x.astype(float) - x.max(-1, keepdims=True))
    real = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    steps = np.clip(real / step + zero, -128, 127)
    # Half a step of the result, and what the sum of exponentials with 19 fraction bits leaves.
    assert np.abs(found(x, scale, step, zero, rounding) - steps).max() <= 0.51 + 1e-4 / step


@pytest.mark.parametrize("size", [1, 4095, 5000])
def test_equal_elements(size: int) -> None:
    assert set(found(np.full((1, size), 5, np.int8), 0.1, 0.08, 127).reshape(-1).tolist()) == {
        round(127 - np.log(size) / 0.08)
    }


def test_a_table_of_another_size() -> None:
    x = relax.Var("x", relax.TensorType((1, 4), "int8"))
    tables = [relax.Var(name, relax.TensorType((256,), "int32")) for name in "edl"]
    with pytest.raises(Exception, match="table of logarithms"):
        relax.BlockBuilder().normalize(qlogsoftmax(x, *tables, output_zero_point=0, multiplier=1, shift=0))
