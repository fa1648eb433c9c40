"""Integer operators on int16: element by element in Python integers, compiled, and in whole networks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import IntegerCore, LowerQDQ, Quantize, calibrate, get_remarks
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.integer import ops
from tvmcompress.passes.integer.requantize import quantize_multiplier, reduce_multiplier
from tvmcompress.passes.integer.wide_softmax import softmax_factor, softmax_tables

from ..integer import exact, running
from ..small_models import model, operators, samples
from .test_lower_qdq import _PARAMS, CASES, SHAPE

_LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767)}


def _array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    low, high = _LIMITS[dtype]
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


@given(
    seed=st.integers(0, 2**31),
    factor=st.floats(1e-7, 0.3),
    accumulator=st.sampled_from(["int32", "int64"]),
    out=st.sampled_from(["int8", "int16"]),
    depthwise=st.booleans(),
)
@settings(max_examples=14, deadline=None)
def test_layers(seed: int, factor: float, accumulator: str, out: str, depthwise: bool) -> None:
    rng = np.random.default_rng(seed)
    x = _array(rng, (1, 5, 4, 3), "int16")
    weight = rng.integers(-127, 128, (3, 2, 3, 1 if depthwise else 3)).astype(np.int8)
    multiplier, shift = reduce_multiplier(*quantize_multiplier(factor))
    arrays = {
        "weight": weight[..., 0].transpose(1, 2, 0)[None] if depthwise else weight,
        "bias": rng.integers(-(2**20), 2**20, 3).astype(np.int32),
        "multiplier": np.array([multiplier, 32767, 16384], np.int32),
        "shift": np.full(3, shift, np.int32),
    }
    low, high = _LIMITS[out]
    attrs = {"input_zero_point": 0, "output_zero_point": 3 if out == "int8" else 0, "qmin": low, "qmax": high}
    attrs |= {"rounding": "reduced", "max_shift": shift, "out_dtype": out, "accumulator": accumulator}
    geometry = {"strides": (2, 1), "padding": (1, 0, 0, 1), "dilation": (1, 1)}

    def build(x: relax.Expr, *args: relax.Expr) -> relax.Expr:
        return (ops.qdepthwise if depthwise else ops.qconv2d)(x, *args, **geometry, **attrs)

    found = running.both(build, [x], {name: np.ascontiguousarray(value) for name, value in arrays.items()})
    acc = exact.convolution(x, weight, arrays["bias"], (2, 1), (1, 0, 0, 1), (1, 1), 3 if depthwise else 1, 0)
    assert found.dtype == out
    for index in np.ndindex(acc.shape):
        q = int(arrays["multiplier"][index[-1]])
        want = exact.requantize(int(acc[index]), q, shift, attrs["output_zero_point"], low, high, "reduced")
        assert found[index] == want


@given(
    seed=st.integers(0, 2**31),
    dtypes=st.tuples(*[st.sampled_from(["int8", "int16"])] * 3).filter(lambda kinds: "int16" in kinds),
    rounding=st.sampled_from(["double", "single"]),
)
@settings(max_examples=14, deadline=None)
def test_sums_and_products(seed: int, dtypes: tuple[str, str, str], rounding: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = (_array(rng, (2, 7), dtype) for dtype in dtypes[:2])
    zeros = [int(rng.integers(-128, 128)) if dtype == "int8" else 0 for dtype in dtypes]
    low, high = _LIMITS[dtypes[2]]
    scales = rng.uniform(1e-4, 1e-3, 3)
    wide = "int16" in dtypes[:2]
    shift = ops.WIDE_LEFT_SHIFT if wide else 20
    factors = ops.add_parameters(*scales, rounding, shift)
    common = {
        "input1_zero_point": zeros[0],
        "input2_zero_point": zeros[1],
        "output_zero_point": zeros[2],
        "qmin": low,
        "qmax": high,
        "rounding": rounding,
        "out_dtype": dtypes[2],
    }
    total = running.both(lambda x, y: ops.qadd(x, y, **common, **factors), [a, b])
    multiplier = quantize_multiplier(float(rng.uniform(1e-6, 1e-2)), rounding)
    product = running.both(lambda x, y: ops.qmul(x, y, multiplier=multiplier[0], shift=multiplier[1], **common), [a, b])
    for index in np.ndindex(a.shape):
        first, second = int(a[index]) - zeros[0], int(b[index]) - zeros[1]
        parts = [
            exact.multiply(value << shift, factors[f"input{k}_multiplier"], factors[f"input{k}_shift"], rounding)
            for k, value in ((1, first), (2, second))
        ]
        ends = (zeros[2], low, high, rounding)
        assert total[index] == exact.requantize(sum(parts), factors["output_multiplier"], factors["output_shift"], *ends)
        assert product[index] == exact.requantize(first * second, *multiplier, *ends)


@pytest.mark.parametrize("function", [np.tanh, np.exp, lambda v: v / (1 + np.exp(-v))])
def test_tables_with_interpolation(function: object) -> None:
    scale, out_scale = 4 / 32768, 60 / 32768
    steps = np.arange(-32768, 32769, 64) * scale
    table = ops.interpolated_table(function(steps), out_scale)
    x = np.arange(-32768, 32768, dtype=np.int16).reshape(16, 4096)
    found = running.both(lambda v, t: ops.qlut(v, t), [x], {"table": table})
    # Linear between entries: off by a step of rounding, and by a part of the curvature.
    assert np.abs(found * out_scale - function(x * scale)).max() <= 2.5 * out_scale
    # At the entries the slope does not matter.
    np.testing.assert_array_equal(found.reshape(-1)[::128], table[:512])


@pytest.mark.parametrize("scale", [1e-4, 5e-4, 0.01])
def test_softmax(scale: float) -> None:
    x = _array(np.random.default_rng(0), (3, 4, 9), "int16")
    x[0, 0] = 7
    tables = dict(zip(("exponentials", "reciprocals"), softmax_tables()))
    multiplier, shift = softmax_factor(scale)
    found = running.both(lambda v, e, r: ops.wsoftmax(v, e, r, multiplier=multiplier, shift=shift), [x], tables)
    # Differences beyond 10 count as 10.
    real = np.exp(np.maximum(scale * (x - x.max(-1, keepdims=True).astype(np.float64)), -10))
    real /= real.sum(-1, keepdims=True)
    assert np.abs(found / 32768 - real).max() < 2e-4



@pytest.mark.parametrize("name", CASES)
def test_networks(name: str) -> None:
    build, _ = CASES[name]
    mod = model(build, SHAPE, params=_PARAMS)
    lowered = LowerQDQ()(Quantize(calibrate(mod, [samples(SHAPE)]), precision="int16x8")(mod))
    assert get_remarks(lowered) == []
    core = IntegerCore()(lowered)
    moves = ("permute_dims", "reshape", "strided_slice", "split")
    assert all(entry.startswith("w") or entry in moves for entry in operators(core))
    assert {str(v.ty.dtype) for v, _ in bindings(core["main"]) if isinstance(v.ty, relax.TensorType)} == {"int16"}
    inputs = samples(SHAPE)
    (real,), (found,) = run(mod, inputs), run(lowered, inputs)
    # Eight bits are left of the weights.
    assert np.abs(found - real).max() <= max(np.abs(real).max() / 40, 0.004)
    single = [inputs[0][:1]]
    np.testing.assert_array_equal(running.compiled(lowered, single)[0], run(lowered, single)[0])


@pytest.mark.parametrize("which", [0, 1])
def test_requantization_between_precisions(which: int) -> None:
    build = CASES["residual"][0]
    mod = model(build, SHAPE, params=_PARAMS)
    ranges = calibrate(mod, [samples(SHAPE)])
    layers = [v.name for v, value in bindings(mod["main"]) if isinstance(value, relax.Call) and "conv2d" in value.op.name]
    lowered = LowerQDQ()(Quantize(ranges, precision={layers[which]: "int16x8"})(mod))
    assert get_remarks(lowered) == []
    inputs = samples(SHAPE, count=2)
    (real,), (found,) = run(mod, inputs), run(lowered, inputs)
    assert np.abs(found - real).max() <= np.abs(real).max() / 20
    single = [inputs[0][:1]]
    np.testing.assert_array_equal(running.compiled(lowered, single)[0], run(lowered, single)[0])


def test_what_has_no_form_for_int16_stays_float() -> None:
    mod = model(lambda x, p: relax.op.matmul(x, relax.op.permute_dims(x, [0, 2, 1])), (1, 4, 6))
    wide = model(
        lambda x, p: relax.op.matmul(relax.op.matmul(x, p["w"]), relax.op.permute_dims(x, [0, 2, 1])),
        (1, 4, 6),
        params={"w": np.eye(6, dtype=np.float32)},
    )
    assert operators(mod) == ["permute_dims", "matmul"]
    lowered = LowerQDQ()(Quantize(calibrate(wide, [samples((1, 4, 6))]), precision="int16x8")(wide))
    assert any("no form for int16" in remark.message for remark in get_remarks(lowered))
    (x,) = samples((1, 4, 6))
    np.testing.assert_allclose(run(lowered, [x])[0], run(wide, [x])[0], atol=0.05)
