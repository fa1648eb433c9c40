"""Weights of four bits: operators against NumPy and compiled, in the QDQ form and in integer programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.passes import IntegerCore, LowerQDQ, Quantize, Scheme, calibrate, get_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.analysis import count_params
from tvmcompress.passes.graph.decode_weights import DecodeWeights
from tvmcompress.passes.graph.interpreter import evaluate_call, run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.integer.ops import int4_weight, unpacked
from tvmcompress.passes.numbers.int4_weights import pack_int4

from ..small_models import model, operators, samples, weights
from . import running

op = relax.op
SHAPE = (1, 8, 5, 6)
_PARAMS = weights(
    c__weight=(12, 8, 3, 3),
    c__bias=(1, 12, 1, 1),
    d__weight=(12, 1, 3, 3),
    f__weight=(12, 5),
    f__bias=(5,),
    w__weight=(360, 4),
)


def _net(x: relax.Expr, p: dict) -> relax.Expr:
    y = op.nn.relu(op.add(op.nn.conv2d(x, p["c.weight"], padding=1), p["c.bias"]))
    y = op.nn.conv2d(y, p["d.weight"], padding=1, groups=12)
    flat = op.reshape(op.mean(y, [2, 3], keepdims=True), (1, 12))
    first = op.add(op.matmul(flat, p["f.weight"]), p["f.bias"])
    return op.concat([first, op.matmul(op.reshape(y, (1, 360)), p["w.weight"])], 1)


def _normal(call: relax.Call) -> relax.Call:
    return relax.BlockBuilder().normalize(call)


def _var(name: str, value: np.ndarray) -> relax.Var:
    return relax.Var(name, relax.TensorType(value.shape, value.dtype.name))


@given(
    seed=st.integers(0, 2**31),
    outputs=st.integers(1, 4),
    inputs=st.integers(1, 7),
    window=st.integers(1, 3),
    group_size=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_references(seed: int, outputs: int, inputs: int, window: int, group_size: int) -> None:
    rng = np.random.default_rng(seed)
    groups = -(-inputs // group_size) if group_size else 1
    values = rng.integers(-8, 8, (outputs, window, inputs)).astype(np.int8)
    multipliers = rng.integers(1, 16, (outputs, groups)).astype(np.int8)
    expected = np.empty(values.shape, np.int8)
    for o, w, i in np.ndindex(values.shape):
        expected[o, w, i] = int(values[o, w, i]) * int(multipliers[o, i // group_size if group_size else 0])
    packed = pack_int4(values)
    call = unpacked(_var("p", packed), _var("m", multipliers), shape=values.shape, output_axis=0, group_size=group_size)
    np.testing.assert_array_equal(evaluate_call(_normal(call), [packed, multipliers]), expected)
    turned = np.ascontiguousarray(values.transpose(2, 1, 0))
    call = int4_weight(_var("v", turned), _var("m", multipliers), output_axis=2, input_axis=0, group_size=group_size)
    np.testing.assert_array_equal(evaluate_call(_normal(call), [turned, multipliers]), expected.transpose(2, 1, 0))


@pytest.mark.parametrize("group_size", [0, 3, 4])
def test_a_lowered_network(group_size: int) -> None:
    mod = model(_net, SHAPE, params=_PARAMS)
    ranges = calibrate(mod, [samples(SHAPE)])
    qdq = Quantize(ranges, precision=Scheme("int4", group_size=group_size))(mod)
    lowered = LowerQDQ()(qdq)
    assert operators(IntegerCore()(lowered)).count("unpack_int4") == 4
    stored = get_params(lowered)
    # Two to a byte, under the weights' names.
    assert {name: stored[name].size for name in ("c.weight", "d.weight", "f.weight", "w.weight")} == {
        "c.weight": 432,
        "d.weight": 54,
        "f.weight": 30,
        "w.weight": 720,
    }
    multipliers = sum(value.size for name, value in stored.items() if name.endswith(".multipliers"))
    plain = LowerQDQ()(Quantize(ranges)(mod))
    assert count_params(lowered) == count_params(plain) + multipliers
    groups = {name: stored[f"{name}.multipliers"].shape for name in ("c.weight", "f.weight", "w.weight")}
    per = {0: (1, 1), 3: (3, 4), 4: (2, 3)}[group_size]
    # The rows of the last one are pixels and channels mixed.
    assert groups == {"c.weight": (12, per[0]), "f.weight": (5, per[1]), "w.weight": (4, 1)}
    (x,) = samples(SHAPE)
    (integers,), (floats,) = run(lowered, [x]), run(qdq, [x])
    np.testing.assert_array_equal(integers, run(DecodeWeights()(lowered), [x])[0])
    # The same but for rounding.
    assert np.abs(integers - floats).max() <= 0.02 * np.ptp(floats)
    np.testing.assert_array_equal(running.compiled(lowered, [x[:1]])[0], integers[:1])


def test_other_layers_keep_their_precision() -> None:
    mod = model(_net, SHAPE, params=_PARAMS)
    calls = {var.name: value for var, value in bindings(mod["main"]) if isinstance(value, relax.Call)}
    first = next(name for name, call in calls.items() if call.op.name == "relax.nn.conv2d")
    lowered = LowerQDQ()(Quantize(calibrate(mod, [samples(SHAPE)]), precision={first: "int4"})(mod))
    assert operators(IntegerCore()(lowered)).count("unpack_int4") == 1
    assert get_params(lowered)["d.weight"].dtype == np.int8
