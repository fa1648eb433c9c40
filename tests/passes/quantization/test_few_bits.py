"""Activations of few bits: which tensors have them, that they keep to them, and what their integers are."""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmcompress.errors import UserError
from tvmcompress.passes import Dequantize, LowerQDQ, Quantize, Scheme, calibrate, get_params
from tvmcompress.passes._tvm import relax
from tvmcompress.passes.graph.interpreter import Interpreter, run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.graph.view import GraphView
from tvmcompress.passes.numbers.affine import Range, affine_of_range, integer_limits
from tvmcompress.passes.numbers.schemes import Schemes
from tvmcompress.passes.quantization.few_bits import SUFFIX, clip_of_bits
from tvmcompress.passes.quantization.kinds import op_name
from tvmcompress.passes.quantization.tensor_dtypes import clipped_bits

from ..small_models import model, operators, samples, weights

op = relax.op
SHAPE = (1, 3, 8, 8)
PARAMS = weights(
    a__weight=(8, 3, 3, 3),
    a__bias=(1, 8, 1, 1),
    b__weight=(8, 8, 3, 3),
    c__weight=(8, 16, 1, 1),
    d__weight=(8, 5),
    d__bias=(5,),
)


def _net(x: relax.Expr, p: dict) -> relax.Expr:
    """A residual block, pools and a concatenation between the first and the last layer."""
    a = op.nn.relu(op.add(op.nn.conv2d(x, p["a.weight"], padding=1), p["a.bias"]))
    pooled = op.nn.max_pool2d(a, (2, 2), (2, 2))
    b = op.nn.relu(op.add(op.nn.conv2d(pooled, p["b.weight"], padding=1), pooled))
    joined = op.concat([b, op.nn.avg_pool2d(pooled, (3, 3), (1, 1), padding=(1, 1))], 1)
    c = op.nn.conv2d(joined, p["c.weight"])
    return op.add(op.matmul(op.reshape(op.mean(c, [2, 3], keepdims=True), (1, 8)), p["d.weight"]), p["d.bias"])


def _integers(mod, x) -> dict[str, tuple[int, int]]:
    """The extremes of every tensor of integers of a lowered module."""
    found = {}

    def tap(name: str, value: np.ndarray) -> None:
        if value.dtype in (np.int8, np.uint8):
            low, high = found.get(name, (255, -255))
            found[name] = min(low, int(value.min())), max(high, int(value.max()))

    Interpreter(mod)([x], tap)
    return found


@pytest.fixture(scope="module")
def net():
    return model(_net, SHAPE, params=PARAMS)


@pytest.fixture(scope="module")
def ranges(net):
    return calibrate(net, [samples(SHAPE)])


def test_what_is_multiplied_between_first_and_last_layer_has_few_bits(net, ranges) -> None:
    quantized = Quantize(ranges, precision=Scheme(activation_bits=4))(net)
    graph = GraphView(quantized)
    made = {var.name: clip_of_bits(graph, call) for var, call in graph.values.items() if op_name(call) == "relax.quantize"}
    few = {name.removesuffix(".quantized") for name, found in made.items() if found is not None}
    relus = [var.name for var, value in bindings(net["main"]) if op_name(value) == "relax.nn.relu"]
    joined = next(var.name for var, value in bindings(net["main"]) if op_name(value) == "relax.concat")
    # What the sum alone reads, the block's result as part of the joined tensor alone, and the mean for the last layer, have 8.
    assert few == {relus[0], joined}
    assert clipped_bits(net, Schemes({"*": Scheme(activation_bits=4)})).keys() >= few
    assert operators(quantized).count("clip") == 2
    assert all(found[1].bits == 4 for found in made.values() if found is not None)


@pytest.mark.parametrize("precision", ["int8", "uint8", "int4"])
@pytest.mark.parametrize("bits", [2, 4, 6])
def test_integers_keep_to_their_bits(net, ranges, precision, bits) -> None:
    lowered = LowerQDQ()(Quantize(ranges, precision=Scheme(precision, activation_bits=bits))(net))
    assert not {"clip", "nn.conv2d", "add", "concat"} & set(operators(lowered))
    # Values far outside the range seen are clipped, too.
    seen = _integers(lowered, 5 * samples(SHAPE, seed=3)[0])
    inner = [name for name, value in bindings(net["main"]) if op_name(value) in ("relax.concat", "relax.nn.max_pool2d")]
    low, high = integer_limits("int8", bits)
    # Unsigned integers are kept less 128.
    offset = -128 - low if precision == "uint8" else 0
    for name in (var.name for var in inner):
        assert low + offset <= seen[name][0] < seen[name][1] <= high + offset


def test_the_lowered_model_is_the_quantized_one() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        a = op.nn.relu(op.add(op.nn.conv2d(x, p["a.weight"], padding=1), p["a.bias"]))
        pooled = op.nn.max_pool2d(a, (2, 2), (2, 2))
        b = op.nn.relu(op.add(op.nn.conv2d(pooled, p["b.weight"], padding=1), pooled))
        return op.nn.conv2d(op.nn.conv2d(b, p["b.weight"], padding=1), p["b.weight"], padding=1)

    net = model(build, SHAPE, params={name: value for name, value in PARAMS.items() if name[0] in "ab"})
    (x,) = samples(SHAPE, seed=5)
    quantized = Quantize(calibrate(net, [[x]]), precision=Scheme("int4", activation_bits=4))(net)
    lowered = LowerQDQ()(quantized)
    seen = {}

    def tap(name: str, value: np.ndarray) -> None:
        if value.dtype == np.int8 and value.ndim == 4:
            seen.setdefault(name.removesuffix(".quantized"), []).append(value)

    Interpreter(quantized)([x], tap)
    Interpreter(lowered)([x], tap)
    relu = next(var.name for var, value in bindings(net["main"]) if op_name(value) == "relax.nn.relu")
    want, got = seen[relu]
    # Only what lies on a half may be rounded otherwise.
    differences = np.abs(want.transpose(0, 2, 3, 1).astype(int) - got)
    assert differences.max() <= 1
    assert differences.mean() < 0.002
    assert want.min() == -8
    assert want.max() == 7
    assert not any(var.name.endswith(SUFFIX) for var, _ in bindings(lowered["main"]))


def test_first_and_last_layers_keep_weights_of_eight_bits(net, ranges) -> None:
    params = get_params(Quantize(ranges, precision=Scheme("int4", activation_bits=4))(net))
    largest = {name: int(np.abs(params[f"{name}.weight"]).max()) for name in "abcd"}
    assert largest["a"] == largest["d"] == 127
    assert max(largest["b"], largest["c"]) <= 8
    layer = next(var.name for var, value in bindings(net["main"]) if op_name(value) == "relax.matmul")
    asked = {layer: Scheme("int4", activation_bits=8), "*": Scheme("int4", activation_bits=4)}
    assert np.abs(get_params(Quantize(ranges, precision=asked)(net))["d.weight"]).max() <= 8


def test_back_to_float_there_is_no_clip(net, ranges) -> None:
    back = Dequantize()(Quantize(ranges, precision=Scheme(activation_bits=4))(net))
    assert operators(back) == operators(net)


def test_a_clip_of_the_network_is_none_of_bits() -> None:
    params = weights(a__weight=(4, 3, 1, 1), b__weight=(4, 4, 1, 1))
    mod = model(lambda x, p: op.nn.conv2d(op.clip(op.nn.conv2d(x, p["a.weight"]), 0, 6), p["b.weight"]), SHAPE, params=params)
    quantized = Quantize(calibrate(mod, [samples(SHAPE)]))(mod)
    graph = GraphView(quantized)
    quantizers = [call for call in graph.values.values() if op_name(call) == "relax.quantize"]
    assert all(clip_of_bits(graph, call) is None for call in quantizers)
    assert "clip" in operators(Dequantize()(quantized))


@given(
    low=st.floats(-100, 100, width=32),
    width=st.floats(0, 100, width=32),
    bits=st.integers(2, 8),
    dtype=st.sampled_from(["int8", "uint8"]),
    values=st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=20),
    symmetric=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_affine_of_few_bits(low, width, bits, dtype, values, symmetric) -> None:
    affine = affine_of_range(Range(low, low + width), dtype, symmetric=symmetric, bits=bits, clipped=True)
    x = np.array(values, np.float32)
    integers = affine.quantize(x)
    levels = np.arange(*(np.array(integer_limits(dtype, bits)) + (0, 1)))
    assert levels.size == 2**bits
    grid = (levels - affine.zero_point) * affine.scale
    # The nearest of all real values that the integers stand for.
    best = np.abs(x[:, None].astype(np.float64) - grid).min(1)
    np.testing.assert_allclose(np.abs(affine.dequantize(integers) - x), best, rtol=1e-4, atol=1e-4 * affine.scale)


def test_ranges_are_chosen_for_as_many_integers() -> None:
    params = weights(a__weight=(4, 3, 1, 1), b__weight=(4, 4, 1, 1))
    mod = model(lambda x, p: op.nn.conv2d(op.nn.relu(op.nn.conv2d(x, p["a.weight"])), p["b.weight"]), SHAPE, params=params)
    relu = next(var.name for var, value in bindings(mod["main"]) if op_name(value) == "relax.nn.relu")
    data = [samples(SHAPE)]
    many = calibrate(mod, data, "mse")
    few = calibrate(mod, data, "mse", levels={relu: 16})
    assert few[relu].high < many[relu].high
    assert {**few, relu: None} == {**many, relu: None}
    assert few[relu] == calibrate(mod, data, "mse", options={"levels": 16})[relu]
    # What is asked for counts before it, and observers without levels go without.
    assert calibrate(mod, data, "mse", options={"levels": 256}, levels={relu: 16}) == many
    assert calibrate(mod, data, "minmax", levels={relu: 16}) == calibrate(mod, data, "minmax")


@pytest.mark.parametrize("bits", [0, 1, 9])
def test_other_bits_are_refused(bits) -> None:
    with pytest.raises(UserError, match="activation_bits is 2 to 8"):
        Scheme(activation_bits=bits)


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1)])
def test_biases_of_any_rank(shape) -> None:
    params = weights(a__weight=(8, 3, 3, 3), a__bias=shape)
    mod = model(lambda x, p: op.nn.relu(op.add(op.nn.conv2d(x, p["a.weight"]), p["a.bias"])), SHAPE, params=params)
    (x,) = samples(SHAPE)
    quantized = Quantize(calibrate(mod, [[x]]))(mod)
    assert get_params(quantized)["a.bias"].dtype == np.int32
    lowered = LowerQDQ()(quantized)
    assert "qconv2d" in operators(lowered)
    assert "qadd" not in operators(lowered)
    for made in (quantized, lowered):
        np.testing.assert_allclose(run(made, [x])[0], run(mod, [x])[0], atol=0.1)
