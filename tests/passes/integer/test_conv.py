"""Integer convolutions and matrix products against element-by-element arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes._tvm import relax
from tvmcompress.passes.integer.ops import qconv2d, qdense, qdepthwise
from tvmcompress.passes.integer.requantize import quantize_multipliers

from . import exact, running


def _channel_params(rng: np.random.Generator, channels: int, rounding: str, scale: float) -> dict[str, np.ndarray]:
    factors = scale * rng.uniform(0.2, 3.0, channels)
    multiplier, shift = quantize_multipliers(factors, rounding)
    return {"bias": rng.integers(-5000, 5000, channels).astype(np.int32), "multiplier": multiplier, "shift": shift}


def _expected(
    acc: np.ndarray, params: dict[str, np.ndarray], zero: int, low: int, high: int, rounding: str
) -> np.ndarray:
    out = np.zeros(acc.shape, np.int8)
    for index in np.ndindex(acc.shape):
        q, s = int(params["multiplier"][index[-1]]), int(params["shift"][index[-1]])
        out[index] = exact.requantize(int(acc[index]), q, s, zero, low, high, rounding)
    return out


@st.composite
def _convolutions(draw: st.DrawFn) -> dict:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    return {
        "size": [draw(st.integers(span, span + 4)) for span in spans],
        "groups": groups,
        "inputs": groups * draw(st.integers(1, 3)),
        "outputs": groups * draw(st.integers(1, 3)),
        "kernel": kernel,
        "dilation": dilation,
        "strides": draw(st.tuples(st.integers(1, 3), st.integers(1, 2))),
        "padding": draw(st.tuples(*[st.integers(0, 2)] * 4)),
        "zeros": draw(st.tuples(st.integers(-128, 127), st.integers(-128, 127))),
        "limits": draw(st.sampled_from([(-128, 127), (0, 127), (-5, 20)])),
        "rounding": draw(st.sampled_from(["double", "single"])),
        "scale": draw(st.sampled_from([1e-4, 0.003, 0.02, 2.0])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@given(case=_convolutions(), depthwise=st.booleans())
@settings(max_examples=25, deadline=None)
def test_convolution(case: dict, depthwise: bool) -> None:
    rng = np.random.default_rng(case["seed"])
    groups = case["inputs"] if depthwise else case["groups"]
    outputs = case["inputs"] * (1 + case["seed"] % 2) if depthwise else case["outputs"]
    x = rng.integers(-128, 128, (1, *case["size"], case["inputs"])).astype(np.int8)
    weight = rng.integers(-128, 128, (outputs, *case["kernel"], case["inputs"] // groups)).astype(np.int8)
    params = _channel_params(rng, outputs, case["rounding"], case["scale"])
    low, high = case["limits"]
    geometry = {key: case[key] for key in ("strides", "padding", "dilation")}
    attrs = {
        "input_zero_point": case["zeros"][0],
        "output_zero_point": case["zeros"][1],
        "qmin": low,
        "qmax": high,
        "rounding": case["rounding"],
        "max_shift": int(params["shift"].max()),
    }

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Expr:
        if depthwise:
            return qdepthwise(x, *args, **geometry, **attrs)
        return qconv2d(x, *args, **geometry, groups=groups, **attrs)

    laid_out = weight[..., 0].transpose(1, 2, 0)[None] if depthwise else weight
    found = running.both(build, [x], {"weight": laid_out, **params})
    acc = exact.convolution(x, weight, params["bias"], **geometry, groups=groups, zero_point=case["zeros"][0])
    np.testing.assert_array_equal(found, _expected(acc, params, case["zeros"][1], low, high, case["rounding"]))


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    outputs=st.integers(1, 5),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    rounding=st.sampled_from(["double", "single"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=15, deadline=None)
def test_dense(shape: list[int], outputs: int, zeros: tuple[int, int], rounding: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, shape).astype(np.int8)
    weight = rng.integers(-128, 128, (outputs, shape[-1])).astype(np.int8)
    params = _channel_params(rng, outputs, rounding, 0.01)

    def build(*args: relax.Expr) -> relax.Expr:
        return qdense(*args, input_zero_point=zeros[0], output_zero_point=zeros[1], rounding=rounding)

    found = running.both(build, [x], {"weight": weight, **params})
    acc = (x.astype(np.int64) - zeros[0]) @ weight.T.astype(np.int64) + params["bias"]
    np.testing.assert_array_equal(found, _expected(acc, params, zeros[1], -128, 127, rounding))


def test_a_large_factor_saturates() -> None:
    """A left shift that leaves 32 bits gives the largest value, not a wrapped one."""
    x = np.full((1, 4), 127, np.int8)
    weight = np.array([[127] * 4, [-127] * 4, [1, 0, 0, 0]], np.int8)
    multiplier, shift = quantize_multipliers([2.0**25] * 3)
    params = {"weight": weight, "bias": np.zeros(3, np.int32), "multiplier": multiplier, "shift": shift}
    found = running.both(lambda *args: qdense(*args, input_zero_point=0, output_zero_point=0), [x], params)
    assert found.tolist() == [[127, -128, 127]]


def test_interpreter_takes_batches() -> None:
    from tvmcompress.passes.graph.interpreter import run

    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (5, 6, 6, 4)).astype(np.int8)
    params = {
        "weight": rng.integers(-128, 128, (8, 3, 3, 4)).astype(np.int8),
        **_channel_params(rng, 8, "double", 0.001),
    }

    def build(*args: relax.Expr) -> relax.Expr:
        return qconv2d(*args, padding=(1, 1, 1, 1), input_zero_point=3, output_zero_point=-4)

    mod = running.module(build, [x[:1]], params)
    one_by_one = np.concatenate([run(mod, [sample[None]])[0] for sample in x])
    np.testing.assert_array_equal(run(mod, [x])[0], one_by_one)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 5, 5, 3), (4, 3, 3, 2), (4,)), "weight must have shape"),
        (((1, 5, 5, 3), (4, 3, 3, 3), (5,)), "bias must have shape"),
        (((1, 2, 2, 3), (4, 3, 3, 3), (4,)), "larger than the padded input"),
    ],
)
def test_arguments_that_do_not_fit(shapes: tuple, message: str) -> None:
    dtypes = ("int8", "int8", "int32", "int32", "int32")
    args = [relax.Var(f"a{i}", relax.TensorType(s, d)) for i, (s, d) in enumerate(zip([*shapes, (4,), (4,)], dtypes))]
    with pytest.raises(ValueError, match=message):
        relax.BlockBuilder().normalize(qconv2d(*args, input_zero_point=0, output_zero_point=0))


def test_a_call_survives_serialization() -> None:
    from tvmcompress.passes._tvm import tvm

    x = np.zeros((1, 4, 4, 2), np.int8)
    params = {"weight": np.zeros((2, 3, 3, 2), np.int8), **_channel_params(np.random.default_rng(0), 2, "double", 0.1)}
    mod = running.module(lambda *a: qconv2d(*a, strides=(2, 1), input_zero_point=0, output_zero_point=1), [x], params)
    bare = mod.without_attr("tvmcompress.params")
    tvm.ir.assert_structural_equal(bare, tvm.ir.load_json(tvm.ir.save_json(bare)))
