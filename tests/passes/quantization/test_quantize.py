"""Quantize: what is cut, with which scales, and how odd tensors are treated."""

from __future__ import annotations

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from tvmcompress.passes import Quantize, Range, Scheme, UserError, attach_params, calibrate, get_params, get_remarks
from tvmcompress.passes._tvm import Constant, relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings

from ..small_models import model, operators, samples, weights

op = relax.op
SHAPE = (1, 3, 6, 6)
_PARAMS = weights(c__weight=(4, 3, 3, 3), c__bias=(1, 4, 1, 1), e__weight=(4, 4, 1, 1), e__bias=(1, 4, 1, 1))


def _conv(x: relax.Expr, p: dict, name: str = "c") -> relax.Expr:
    padding = 1 if name == "c" else 0
    return op.add(op.nn.conv2d(x, p[f"{name}.weight"], padding=padding), p[f"{name}.bias"])


def _scales(mod: tvm.IRModule) -> dict[str, tuple[float, int]]:
    """Scale and zero point of every quantize, by the name of its result."""
    found = {}
    for var, value in bindings(mod["main"]):
        if isinstance(value, relax.Call) and value.op.name == "relax.quantize":
            scale, zero = (arg.value.numpy() for arg in value.args[1:])
            found[var.name.removesuffix(".quantized")] = (float(scale), int(zero))
    return found


def _calls(mod: tvm.IRModule, name: str) -> list[relax.Var]:
    """The variables bound to calls of an operator."""
    return [v for v, value in bindings(mod["main"]) if isinstance(value, relax.Call) and value.op.name == f"relax.{name}"]


def _quantized(build: object, *shapes: tuple[int, ...], params: dict | None = None, **options: object) -> tvm.IRModule:
    mod = model(build, *(shapes or (SHAPE,)), params=params or _PARAMS)
    return Quantize(calibrate(mod, [samples(*(shapes or (SHAPE,)))]), **options)(mod)


def test_one_layer_before_and_after() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 2), "float32"), w: R.Tensor((2, 2), "float32"), b: R.Tensor((2,), "float32")
        ) -> R.Tensor((1, 2), "float32"):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.matmul(x, w)
                z = R.add(y, b)
                out = R.nn.relu(z)
                R.output(out)
            return out

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 2), "float32"), w: R.Tensor((2, 2), "int8"), b: R.Tensor((2,), "int32")) -> R.Tensor(
            (1, 2), "float32"
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                xq = R.quantize(x, R.const(0.0078125), R.const(-128, "int8"), out_dtype="int8", axis=-1)
                xd = R.dequantize(xq, R.const(0.0078125), R.const(-128, "int8"), out_dtype="float32", axis=-1)
                wd = R.dequantize(w, R.const([1.0, 2.0]), R.const([0, 0], "int8"), out_dtype="float32", axis=1)
                y = R.matmul(xd, wd)
                bd = R.dequantize(
                    b, R.const([0.0078125, 0.015625]), R.const([0, 0], "int32"), out_dtype="float32", axis=0
                )
                z = R.add(y, bd)
                r = R.nn.relu(z)
                rq = R.quantize(r, R.const(2.0), R.const(-128, "int8"), out_dtype="int8", axis=-1)
                rd = R.dequantize(rq, R.const(2.0), R.const(-128, "int8"), out_dtype="float32", axis=-1)
                out = rd
                R.output(out)
            return out

    params = {"w": np.array([[127.0, 254.0], [-3.4, 0.0]], np.float32), "b": np.array([1.0, -2.0], np.float32)}
    before = attach_params(Before, params)
    after = Quantize({"x": Range(0.0, 255 / 128), "out": Range(0.0, 510.0)})(before)
    tvm.ir.assert_structural_equal(after.without_attr("tvmcompress.params")["main"], After["main"], map_free_vars=True)
    values = get_params(after)
    assert values["w"].tolist() == [[127, 127], [-3, 0]]
    assert values["b"].tolist() == [128, -128]


def test_activations_are_fused_and_named() -> None:
    mod = _quantized(lambda x, p: op.nn.relu(_conv(x, p)))
    assert set(_scales(mod)) == {"x0", "c.relu"}
    # A ReLU's result has no negative values to represent.
    assert _scales(mod)["c.relu"][1] == -128
    assert {"c", "c.bias_add", "c.relu"} <= {var.name for var, _ in bindings(mod["main"])}


def test_a_result_with_other_readers_is_not_fused() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        y = _conv(x, p)
        return op.add(op.nn.relu(y), _conv(y, p, "e"))

    assert {"c.bias_add", "c.relu", "e.bias_add"} <= set(_scales(_quantized(build)))


@pytest.mark.parametrize(
    "move",
    [
        lambda x: op.nn.max_pool2d(x, (2, 2), (2, 2)),
        lambda x: op.reshape(x, (1, 4, 36)),
        lambda x: op.permute_dims(x, [0, 2, 3, 1]),
        lambda x: op.nn.avg_pool2d(x, (2, 2), (1, 1)),
        lambda x: op.nn.pad(x, (0, 0, 0, 0, 1, 1, 1, 1)),
        lambda x: op.image.resize2d(x, (12, 12), layout="NCHW", method="nearest_neighbor"),
        lambda x: relax.TupleGetItem(op.split(x, 2, 1), 0),
    ],
)
def test_moves_keep_the_scale(move: object) -> None:
    found = _scales(_quantized(lambda x, p: move(_conv(x, p))))
    assert len(found) == 3
    assert len({value for name, value in found.items() if name != "x0"}) == 1


def test_softmax_has_a_fixed_scale() -> None:
    mod = _quantized(lambda x, p: op.nn.softmax(op.matmul(x, p["w"])), (1, 5), params=weights(w=(5, 3)))
    assert _scales(mod)["w.softmax"] == (1 / 256, -128)


def test_a_chain_of_pointwise_operators_is_cut_at_its_ends() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        y = _conv(x, p)
        return op.multiply(y, op.divide(op.clip(op.add(y, relax.const(3.0)), 0, 6), relax.const(6.0)))

    assert set(_scales(_quantized(build))) == {"x0", "c.bias_add", "c.multiply"}


def test_per_tensor_weights() -> None:
    mod = _quantized(lambda x, p: _conv(x, p), weights="per_tensor")
    weight = get_params(mod)["c.weight"]
    assert np.abs(weight).max() == 127
    wide = weight * (np.abs(_PARAMS["c.weight"]).max() / 127)
    np.testing.assert_allclose(wide, _PARAMS["c.weight"], atol=np.abs(_PARAMS["c.weight"]).max() / 253)


def test_weights_by_pattern() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        return _conv(op.nn.relu(_conv(x, p)), p, "e")

    def sizes(**options: object) -> list[int]:
        mod = _quantized(build, **options)
        calls = [v for _, v in bindings(mod["main"]) if isinstance(v, relax.Call) and v.op.name == "relax.dequantize"]
        return [call.args[1].value.numpy().size for call in calls if str(call.args[0].ty.dtype) == "int8"]

    assert sizes(weights={"c": "per_tensor"}) == [1, 1, 1, 4, 1]
    assert sizes(weights={"c*": "per_channel", "*": "per_tensor"}) == [1, 4, 1, 1, 1]
    with pytest.raises(UserError, match="not 'per_row'"):
        sizes(weights={"c": "per_row"})


@pytest.mark.parametrize(("precision", "zero"), [("int8", 0), ("uint8", 128)])
def test_symmetric_activations(precision: str, zero: int) -> None:
    mod = model(lambda x, p: _conv(op.nn.relu(_conv(x, p)), p, "e"), SHAPE, params=_PARAMS)
    ranges = calibrate(mod, [samples(SHAPE)])
    symmetric = Quantize(ranges, symmetric=True, precision=precision)(mod)
    assert _scales(symmetric) == {
        name: (float(np.float32(max(-found.low, found.high) / 127)), zero) for name, found in ranges.items()
    }
    inputs = samples(SHAPE, count=2, seed=3)
    real, found = run(mod, inputs)[0], run(symmetric, inputs)[0]
    assert np.abs(found - real).max() <= np.abs(real).max() / 12


def test_power_of_two_scales() -> None:
    params = {**_PARAMS, "scale": np.linspace(0.5, 2.0, 4, dtype=np.float32).reshape(1, 4, 1, 1)}

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        return op.multiply(op.nn.relu(_conv(x, p)), p["scale"])

    mod, inputs = model(build, SHAPE, params=params), samples(SHAPE)
    ranges = calibrate(mod, [inputs])
    quantized = Quantize(ranges, power_of_two=True)(mod)
    calls = [v for _, v in bindings(quantized["main"]) if isinstance(v, relax.Call) and "quantize" in v.op.name]
    scales = np.concatenate([call.args[1].value.numpy().reshape(-1) for call in calls])
    assert (np.frexp(scales)[0] == 0.5).all()
    # Nothing is clipped for it, and no scale is twice what is needed.
    free, bound = _scales(Quantize(ranges)(mod)), _scales(quantized)
    assert all(1 <= bound[name][0] / free[name][0] < 2 for name in free)
    assert 64 <= np.abs(get_params(quantized)["c.weight"]).max() <= 127
    expected = run(mod, inputs)[0]
    np.testing.assert_allclose(run(quantized, inputs)[0], expected, atol=np.abs(expected).max() / 30)


def test_power_of_two_scales_become_shifts() -> None:
    from tvmcompress.passes import LowerQDQ

    mod = model(lambda x, p: op.nn.relu(_conv(x, p)), SHAPE, params=_PARAMS)
    lowered = LowerQDQ()(Quantize(calibrate(mod, [samples(SHAPE)]), power_of_two=True)(mod))
    assert set(get_params(lowered)["c.multiplier"].tolist()) == {1 << 30}


def test_int16_holds_everything_seen() -> None:
    """A range narrowed for 256 integers is not narrowed for 65536."""
    mod = model(lambda x, p: _conv(x, p), SHAPE, params=_PARAMS)
    data = samples(SHAPE, count=3000)
    data[0][0, 0, 0, 0] = 9.0
    ranges = calibrate(mod, [data], "mse")
    narrow, wide = (_scales(Quantize(ranges, precision=precision)(mod))["x0"] for precision in ("int8", "int16x8"))
    assert narrow[0] < 0.9 * (9.0 - float(data[0].min())) / 255
    assert wide[0] == pytest.approx(9.0 / 32767)


def test_excluded_layers_stay_float() -> None:
    mod = _quantized(lambda x, p: _conv(op.nn.relu(_conv(x, p)), p, "e"), exclude=["e*"])
    dtypes = {name: value.dtype.name for name, value in get_params(mod).items()}
    assert dtypes == {"c.weight": "int8", "c.bias": "int32", "e.weight": "float32", "e.bias": "float32"}


def test_a_channel_of_zero_weights_and_one_with_a_huge_bias() -> None:
    params = {name: value.copy() for name, value in _PARAMS.items()}
    params["c.weight"][0] = 0.0
    params["c.weight"][1] *= 1e-9
    params["c.bias"].reshape(-1)[:] = [5.0, 3.0, 0.0, -1.0]
    mod = model(lambda x, p: _conv(x, p), SHAPE, params=params)
    inputs = samples(SHAPE)
    quantized = Quantize(calibrate(mod, [inputs]))(mod)
    integers = get_params(quantized)
    assert np.abs(integers["c.bias"].astype(np.int64)).max() <= 2**28 + 1
    assert not integers["c.weight"][0].any()
    np.testing.assert_allclose(run(quantized, inputs)[0], run(mod, inputs)[0], atol=0.15)
    assert any("dwarfs" in remark.message for remark in get_remarks(quantized))


def test_all_weights_zero() -> None:
    params = {name: np.zeros_like(value) for name, value in _PARAMS.items()}
    mod = model(lambda x, p: _conv(x, p), SHAPE, params=params)
    quantized = Quantize(calibrate(mod, [samples(SHAPE)]))(mod)
    assert not run(quantized, samples(SHAPE))[0].any()


def test_inputs_that_are_all_zero() -> None:
    mod = model(lambda x, p: op.nn.relu(_conv(x, p)), SHAPE, params=_PARAMS)
    zeros = [np.zeros((2, 3, 6, 6), np.float32)]
    quantized = Quantize(calibrate(mod, [zeros]))(mod)
    np.testing.assert_allclose(run(quantized, zeros)[0], run(mod, zeros)[0], atol=0.02)


def test_a_weight_that_two_layers_share() -> None:
    """The biases of the two readers have different scales, so they become two parameters."""
    params = weights(e__weight=(3, 3, 1, 1), e__bias=(1, 3, 1, 1))

    def build(x: relax.Expr, p: dict) -> relax.Expr:
        return _conv(op.nn.relu(_conv(x, p, "e")), p, "e")

    mod = model(build, SHAPE, params=params)
    inputs = samples(SHAPE)
    quantized = Quantize(calibrate(mod, [inputs]))(mod)
    expected = run(mod, inputs)[0]
    np.testing.assert_allclose(run(quantized, inputs)[0], expected, atol=np.abs(expected).max() / 20)


def test_a_constant_operand() -> None:
    params = {**_PARAMS, "scale": np.linspace(0.5, 2.0, 4, dtype=np.float32).reshape(1, 4, 1, 1)}
    mod = model(lambda x, p: op.multiply(_conv(x, p), p["scale"]), SHAPE, params=params)
    inputs = samples(SHAPE)
    quantized = Quantize(calibrate(mod, [inputs]))(mod)
    assert get_params(quantized)["scale"].dtype == np.int8
    expected = run(mod, inputs)[0]
    np.testing.assert_allclose(run(quantized, inputs)[0], expected, atol=np.abs(expected).max() / 50)


def test_several_inputs_and_outputs() -> None:
    def build(x: relax.Expr, y: relax.Expr, p: dict) -> relax.Expr:
        total = op.add(_conv(x, p), y)
        return relax.Tuple([op.nn.relu(total), op.mean(total, [2, 3], keepdims=True)])

    mod = model(build, SHAPE, (1, 4, 6, 6), params=_PARAMS)
    inputs = samples(SHAPE, (1, 4, 6, 6))
    quantized = Quantize(calibrate(mod, [inputs]))(mod)
    for found, expected in zip(run(quantized, inputs), run(mod, inputs)):
        np.testing.assert_allclose(found, expected, atol=np.abs(expected).max() / 25)


def test_everything_between_is_quantized() -> None:
    """Apart from constants, every operator reads dequantized tensors and its unit ends in quantize."""
    mod = _quantized(lambda x, p: op.nn.relu(op.add(_conv(op.nn.relu(_conv(x, p)), p, "e"), _conv(x, p))))
    names = operators(mod)
    assert names.count("quantize") == 5
    assert names[-1] == "dequantize"


def test_what_cannot_be_quantized() -> None:
    mod = model(lambda x, p: _conv(x, p), SHAPE, params=_PARAMS)
    ranges = calibrate(mod, [samples(SHAPE)])
    with pytest.raises(UserError, match="'per_channel' or 'per_tensor'"):
        Quantize(ranges, weights="per_row")
    with pytest.raises(UserError, match="has no range"):
        Quantize({})(mod)
    with pytest.raises(UserError, match="quantized already"):
        Quantize(ranges)(Quantize(ranges)(mod))
    with pytest.raises(UserError, match="no convolution or matrix product"):
        Quantize({})(model(lambda x, p: op.nn.relu(x), SHAPE))
    broken = {**_PARAMS, "c.weight": np.full((4, 3, 3, 3), np.nan, np.float32)}
    with pytest.raises(UserError, match="not finite"):
        Quantize(ranges)(model(lambda x, p: _conv(x, p), SHAPE, params=broken))


def test_scales_are_constants_in_the_graph() -> None:
    mod = _quantized(lambda x, p: _conv(x, p))
    calls = [v for _, v in bindings(mod["main"]) if isinstance(v, relax.Call) and "quantize" in v.op.name]
    assert all(isinstance(arg, Constant) for call in calls for arg in call.args[1:])


def test_unsigned_activations_are_the_same_numbers_shifted() -> None:
    signed = _scales(_quantized(lambda x, p: op.nn.relu(_conv(x, p))))
    unsigned = _scales(_quantized(lambda x, p: op.nn.relu(_conv(x, p)), precision="uint8"))
    assert unsigned == {name: (scale, zero + 128) for name, (scale, zero) in signed.items()}


def test_wide_activations_are_symmetric() -> None:
    mod = model(lambda x, p: op.nn.softmax(_conv(x, p)), SHAPE, params=_PARAMS)
    ranges = calibrate(mod, [samples(SHAPE)])
    scales = _scales(Quantize(ranges, precision="int16x8")(mod))
    assert {zero for _, zero in scales.values()} == {0}
    name = next(name for name in scales if name.startswith("x"))
    assert scales[name][0] == pytest.approx(max(-ranges[name].low, ranges[name].high) / 32767)
    assert 1 / 32768 in {scale for scale, _ in scales.values()}


def test_seven_bits_leave_room() -> None:
    mod = model(lambda x, p: op.nn.relu(_conv(x, p)), SHAPE, params=_PARAMS)
    ranges = calibrate(mod, [samples(SHAPE)])
    quantized = Quantize(ranges, precision=Scheme(weight_bits=7, activation_bits=7))(mod)
    assert np.abs(get_params(quantized)["c.weight"]).max() == 63
    for name, (scale, zero) in _scales(quantized).items():
        ends = [round(end / scale) + zero for end in (min(ranges[name].low, 0), max(ranges[name].high, 0))]
        assert min(ends) >= -65
        assert max(ends) <= 64


def test_weights_as_float16() -> None:
    mod = model(lambda x, p: op.nn.relu(_conv(x, p)), SHAPE, params=_PARAMS)
    halved = Quantize({}, precision="float16")(mod)
    assert operators(halved) == ["astype", "nn.conv2d", "add", "nn.relu"]
    np.testing.assert_array_equal(get_params(halved)["c.weight"], _PARAMS["c.weight"].astype(np.float16))
    (x,) = samples(SHAPE)
    (want,), (got,) = run(mod, [x]), run(halved, [x])
    np.testing.assert_allclose(got, want, atol=2e-3)
    huge = dict(_PARAMS, **{"c.weight": np.full_like(_PARAMS["c.weight"], 1e6)})
    clipped = Quantize({}, precision="float16")(model(lambda x, p: _conv(x, p), SHAPE, params=huge))
    assert np.isfinite(get_params(clipped)["c.weight"]).all()
    assert "beyond the range of float16" in get_remarks(clipped)[0].message


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_float_layer_takes_its_bias_and_activation_along(precision: str) -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        return _conv(op.nn.relu(_conv(x, p)), p, "e")

    mod = model(build, SHAPE, params=_PARAMS)
    layer = _calls(mod, "nn.conv2d")[0].name
    quantized = Quantize(calibrate(mod, [samples(SHAPE)]), precision={layer: precision})(mod)
    params = get_params(quantized)
    assert params["c.bias"].dtype == np.float32
    assert params["e.weight"].dtype == np.int8
    assert str(params["c.weight"].dtype) == precision
    # What it computes is quantized for the layer behind it, its input is not.
    assert len(_scales(quantized)) == 2


def test_a_tensor_is_wide_where_either_side_is() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        y = op.nn.max_pool2d(op.nn.relu(_conv(x, p)), (2, 2), (2, 2))
        return op.nn.softmax(op.nn.relu(_conv(y, p, "e")), 1)

    mod = model(build, SHAPE, params=_PARAMS)
    names = [var.name for var in _calls(mod, "nn.conv2d")]
    ranges = calibrate(mod, [samples(SHAPE)])

    def dtypes(layer: int) -> list[str]:
        quantized = Quantize(ranges, precision={names[layer]: "int16x8"})(mod)
        return [str(var.ty.dtype) for var in _calls(quantized, "quantize")]

    # The input, the first layer's result, its pooling, the second layer's result, softmax.
    assert dtypes(0) == ["int16", "int16", "int16", "int8", "int8"]
    assert dtypes(1) == ["int8", "int16", "int16", "int16", "int8"]


def test_wrong_schemes() -> None:
    with pytest.raises(UserError, match="a precision is one of int8"):
        Quantize({}, precision="int3")
    with pytest.raises(UserError, match="weight_bits is 7 or 8"):
        Scheme(weight_bits=4)
    with pytest.raises(UserError, match="group_size"):
        Scheme("int4", group_size=-1)
