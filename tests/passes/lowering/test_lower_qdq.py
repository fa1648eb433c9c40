"""LowerQDQ: every operator in integers, the compiled program equal to its reference, and close to the float model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tvmcompress.passes import (
    IntegerCore,
    LowerQDQ,
    Quantize,
    UserError,
    calibrate,
    dequantize_output,
    get_io_quantization,
    get_params,
    get_remarks,
    quantize_input,
)
from tvmcompress.passes._tvm import relax, tvm
from tvmcompress.passes.graph.interpreter import run
from tvmcompress.passes.graph.rebuild import bindings
from tvmcompress.passes.lowering.lower_qdq import get_scales

from ..integer import running
from ..small_models import model, operators, samples, weights

op = relax.op
SHAPE = (1, 4, 6, 8)
_PARAMS = weights(
    c__weight=(8, 4, 3, 3),
    c__bias=(1, 8, 1, 1),
    d__weight=(8, 1, 3, 3),
    d__bias=(1, 8, 1, 1),
    g__weight=(6, 4, 3, 3),
    m__weight=(8, 1, 2, 2),
    f__weight=(384, 5),
    f__bias=(5,),
    scale=(1, 8, 1, 1),
)


def _conv(x: relax.Expr, p: dict, name: str = "c", **options: object) -> relax.Expr:
    y = op.nn.conv2d(x, p[f"{name}.weight"], **{"padding": 1, **options})
    return op.add(y, p[f"{name}.bias"]) if f"{name}.bias" in p else y


def _swish(x: relax.Expr) -> relax.Expr:
    return op.multiply(x, op.divide(op.clip(op.add(x, relax.const(3.0)), 0, 6), relax.const(6.0)))


Case = tuple[Callable[..., relax.Expr], list[str]]
# The model, and the operators of its integer core.
CASES: dict[str, Case] = {
    "conv": (lambda x, p: _conv(x, p), ["qconv2d"]),
    "conv relu": (lambda x, p: op.nn.relu(_conv(x, p, strides=2)), ["qconv2d"]),
    "conv clip": (lambda x, p: op.clip(_conv(x, p, padding=(0, 1, 2, 1)), 0, 1.5), ["qconv2d"]),
    "dilated": (lambda x, p: _conv(x, p, dilation=2, padding=2), ["qconv2d"]),
    "no bias": (lambda x, p: _conv(op.nn.relu(_conv(x, p)), p, "g", groups=2), ["qconv2d", "qconv2d"]),
    "depthwise": (lambda x, p: _conv(_conv(x, p), p, "d", groups=8), ["qconv2d", "qdepthwise"]),
    "multiplier": (lambda x, p: _conv(x, p, "m", groups=4), ["qdepthwise"]),
    "residual": (
        lambda x, p: op.nn.relu(op.add(_conv(x, p), _conv(_conv(x, p), p, "d", groups=8))),
        ["qconv2d", "qconv2d", "qdepthwise", "qadd"],
    ),
    "difference": (lambda x, p: op.subtract(_conv(x, p), op.nn.relu(_conv(x, p))), ["qconv2d", "qconv2d", "qsub"]),
    "gate": (
        lambda x, p: op.multiply(_conv(x, p), op.sigmoid(op.mean(_conv(x, p), [2, 3], keepdims=True))),
        None,
    ),
    "scaled by a constant": (lambda x, p: op.multiply(_conv(x, p), p["scale"]), ["qconv2d", "qmul"]),
    "shifted by a constant": (lambda x, p: op.add(op.nn.relu(_conv(x, p)), p["scale"]), ["qconv2d", "qadd"]),
    "max pool": (lambda x, p: op.nn.max_pool2d(_conv(x, p), (3, 3), (2, 2), 1), ["qconv2d", "qmaxpool"]),
    "ceil": (lambda x, p: op.nn.max_pool2d(_conv(x, p), (3, 3), (2, 2), ceil_mode=True), ["qconv2d", "qmaxpool"]),
    "average pool": (lambda x, p: op.nn.avg_pool2d(_conv(x, p), (2, 2), (2, 2)), ["qconv2d", "qavgpool"]),
    "padded average": (lambda x, p: op.nn.avg_pool2d(_conv(x, p), (3, 3), (1, 1), 1), ["qconv2d", "qavgpool"]),
    "padding counts": (
        lambda x, p: op.nn.avg_pool2d(_conv(x, p), (3, 3), (1, 1), 1, count_include_pad=True),
        ["qconv2d", "qpad", "qavgpool"],
    ),
    "global average": (lambda x, p: op.nn.avg_pool2d(_conv(x, p), (6, 8), (1, 1)), ["qconv2d", "qmean"]),
    "adaptive": (lambda x, p: op.nn.adaptive_avg_pool2d(_conv(x, p), 1), ["qconv2d", "qmean"]),
    "mean": (lambda x, p: op.mean(_conv(x, p), [2, 3], keepdims=False), ["qconv2d", "qmean"]),
    "concat": (
        lambda x, p: op.concat([_conv(x, p), x, op.nn.relu(_conv(x, p))], 1),
        ["qconv2d", "qconv2d", "qconcat"],
    ),
    "split": (
        lambda x, p: op.add(*[relax.TupleGetItem(op.split(_conv(x, p), 2, 1), i) for i in (0, 1)]),
        None,
    ),
    "slice": (lambda x, p: op.strided_slice(_conv(x, p), [1], [2], [6]), ["qconv2d", "strided_slice"]),
    "pad": (lambda x, p: op.nn.pad(_conv(x, p), (0, 0, 0, 0, 1, 2, 0, 1)), ["qconv2d", "qpad"]),
    "nearest": (
        lambda x, p: op.image.resize2d(_conv(x, p), (12, 16), layout="NCHW", method="nearest_neighbor"),
        ["qconv2d", "qresize"],
    ),
    "linear": (
        lambda x, p: op.image.resize2d(_conv(x, p), (9, 16), layout="NCHW", method="linear"),
        ["qconv2d", "qresize"],
    ),
    "swish": (lambda x, p: _swish(_conv(x, p)), ["qconv2d", "qlut"]),
    "silu": (lambda x, p: op.nn.silu(_conv(x, p)), ["qconv2d", "qlut"]),
    "tanh": (lambda x, p: op.tanh(_conv(x, p)), ["qconv2d", "qlut"]),
    "leaky": (lambda x, p: op.nn.leakyrelu(_conv(x, p), 0.1), ["qconv2d", "qlut"]),
    "dense": (
        lambda x, p: op.nn.softmax(
            op.add(op.matmul(op.reshape(op.nn.relu(_conv(x, p)), (1, 384)), p["f.weight"]), p["f.bias"])
        ),
        ["qconv2d", "reshape", "qdense", "qsoftmax"],
    ),
    "softmax of channels": (lambda x, p: op.nn.softmax(_conv(x, p), 1), ["qconv2d", "qsoftmax"]),
}


def _lowered(build: Callable[..., relax.Expr], rounding: str = "double") -> tuple[tvm.IRModule, tvm.IRModule]:
    mod = model(build, SHAPE, params=_PARAMS)
    return mod, LowerQDQ(rounding)(Quantize(calibrate(mod, [samples(SHAPE)]))(mod))


@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, rounding: str) -> None:
    build, expected = CASES[name]
    mod, lowered = _lowered(build, rounding)
    assert get_remarks(lowered) == []
    core = operators(IntegerCore()(lowered))
    if expected is not None:
        assert [entry for entry in core if entry != "permute_dims"] == expected
    assert all(
        entry.startswith("q") or entry in ("permute_dims", "reshape", "strided_slice", "split") for entry in core
    )
    inputs = samples(SHAPE, count=2)
    for real, found in zip(run(mod, inputs), run(lowered, inputs)):
        assert np.abs(found - real).max() <= max(np.abs(real).max() / 20, 0.02)
    single = [inputs[0][:1]]
    for by_code, by_reference in zip(running.compiled(lowered, single), run(lowered, single)):
        np.testing.assert_array_equal(by_code, by_reference)


def test_the_core_is_the_program_without_its_ends() -> None:
    _, lowered = _lowered(CASES["residual"][0])
    core = IntegerCore()(lowered)
    quantization = get_io_quantization(core)
    assert quantization.inputs[0].layout == "NHWC"
    assert quantization.inputs[0].shape == (1, 6, 8, 4)
    assert {str(var.ty.dtype) for var, _ in bindings(core["main"])} == {"int8"}
    [x] = samples(SHAPE, count=3)
    outputs = run(core, [quantize_input(x, quantization.inputs[0])])
    found = dequantize_output(outputs[0], quantization.outputs[0])
    np.testing.assert_array_equal(found, run(lowered, [x])[0])
    assert IntegerCore()(core).same_as(core)
    with pytest.raises(UserError, match="has shape"):
        quantize_input(x[:, :2], quantization.inputs[0])


def test_names_and_scales_survive() -> None:
    _, lowered = _lowered(CASES["dense"][0])
    names = {var.name for var, _ in bindings(lowered["main"])}
    assert {"c.relu", "f.bias_add", "f.softmax"} <= names
    assert {"c.weight", "c.bias", "c.multiplier", "c.shift", "f.weight"} <= set(get_params(lowered))
    assert get_scales(lowered)["f.softmax"].scale == 1 / 256
    assert get_params(lowered)["f.weight"].shape == (5, 384)
    assert get_params(lowered)["c.weight"].shape == (8, 3, 3, 4)


def test_what_has_no_integer_form_stays_float_and_is_named() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        y = op.nn.relu(_conv(x, p))
        return _conv(op.cumsum(y, axis=3), p, "d", groups=8)

    mod, lowered = _lowered(build)
    names = operators(lowered)
    assert "cumsum" in names
    assert "qdepthwise" in names
    [remark] = [r for r in get_remarks(lowered) if r.pass_name == "LowerQDQ"]
    assert "cumsum stays in float" in remark.message
    inputs = samples(SHAPE, count=2)
    real = run(mod, inputs)[0]
    assert np.abs(run(lowered, inputs)[0] - real).max() <= np.abs(real).max() / 15


def test_a_float_end_stays() -> None:
    def build(x: relax.Expr, p: dict) -> relax.Expr:
        return op.cumsum(_conv(x, p), axis=3)

    _, lowered = _lowered(build)
    core = IntegerCore()(lowered)
    assert get_io_quantization(core).outputs[0].dtype == "float32"
    assert any(remark.pass_name == "IntegerCore" for remark in get_remarks(core))
    inputs = samples(SHAPE, count=1)
    quantized = quantize_input(inputs[0], get_io_quantization(core).inputs[0])
    np.testing.assert_array_equal(run(core, [quantized])[0], run(lowered, inputs)[0])


def test_a_model_that_is_not_quantized() -> None:
    with pytest.raises(UserError, match="not quantized"):
        LowerQDQ()(model(CASES["conv"][0], SHAPE, params=_PARAMS))
    with pytest.raises(UserError, match="rounding"):
        LowerQDQ("up")


def _by_hand(scale: float, zero: int, dtype: str, weight_zero: int = 0, bias: bool = True) -> tvm.IRModule:
    """A QDQ matrix product as other tools write it: weights (N, K) behind a transposition, a bias of another scale."""
    from tvmcompress.passes import attach_params

    rng = np.random.default_rng(0)
    weight = (rng.integers(-127, 128, (3, 5)) + weight_zero).astype(np.uint8 if weight_zero else np.int8)
    params = {"w": weight, "b": (rng.standard_normal(3) * 0.3).astype(np.float32)}
    x = relax.Var("x", relax.TensorType((1, 5), "float32"))
    w = relax.Var("w", relax.TensorType((3, 5), weight.dtype.name))
    b = relax.Var("b", relax.TensorType((3,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w, b], attrs={"num_input": 1}):
        with builder.dataflow():
            qx = op.quantize(x, relax.const(0.02), relax.const(np.asarray(zero, dtype)), out_dtype=dtype)
            dx = op.dequantize(builder.emit(qx), relax.const(0.02), relax.const(np.asarray(zero, dtype)))
            zeros = relax.const(np.full((3,), weight_zero, weight.dtype))
            scales = relax.const(np.array([0.01, 0.02, 0.004], np.float32))
            dw = builder.emit(op.dequantize(w, scales, zeros, axis=0))
            y = builder.emit(op.matmul(builder.emit(dx), builder.emit(op.permute_dims(dw, [1, 0]))))
            y = builder.emit(op.add(y, b)) if bias else y
            out_zero = relax.const(np.asarray(zero, dtype))
            q = builder.emit(op.quantize(y, relax.const(scale), out_zero, out_dtype=dtype))
            out = builder.emit_output(op.dequantize(q, relax.const(scale), out_zero))
        builder.emit_func_output(out)
    return attach_params(builder.get(), params)


@pytest.mark.parametrize(("dtype", "zero"), [("int8", 3), ("uint8", 131), ("uint8", 0)])
@pytest.mark.parametrize("weight_zero", [0, 128])
def test_models_that_other_tools_quantized(dtype: str, zero: int, weight_zero: int) -> None:
    mod = _by_hand(0.05, zero, dtype, weight_zero)
    lowered = LowerQDQ()(mod)
    assert operators(lowered) == ["quantize", "qdense", "dequantize"]
    x = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    # A tie may fall the other way.
    assert np.abs(run(lowered, [x])[0] - run(mod, [x])[0]).max() <= 0.0501


def test_scales_are_raised_until_sums_fit_32_bits() -> None:
    # With a scale of 1/127 all weights were 127, the activations 255 above their zero point: sums of 2.27e9.
    mod = model(lambda x, p: op.matmul(x, p["w"]), (1, 70_000), params={"w": np.ones((70_000, 1), np.float32)})
    x = [np.random.default_rng(0).uniform(0, 1, (2, 70_000)).astype(np.float32)]
    x[0][0] = 1.0
    quantized = Quantize(calibrate(mod, [x]))(mod)
    assert "could leave 32 bits; scales raised" in get_remarks(quantized)[0].message
    assert get_params(quantized)["w"].astype(np.int64).sum() * 255 < 2**31
    lowered = LowerQDQ()(quantized)
    assert operators(lowered) == ["quantize", "qdense", "dequantize"]
    np.testing.assert_allclose(run(lowered, x)[0], run(mod, x)[0], rtol=0.02)


def test_sums_of_an_imported_model_that_leave_32_bits_are_formed_in_64() -> None:
    from tvmcompress.passes import attach_params

    depth = 70_000
    x, w = relax.Var("x", relax.TensorType((1, depth), "float32")), relax.Var("w", relax.TensorType((depth, 1), "int8"))
    zero = relax.const(np.int8(-128))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, w], attrs={"num_input": 1}):
        with builder.dataflow():
            q = builder.emit(op.quantize(x, relax.const(1.0), zero, out_dtype="int8"))
            dw = builder.emit(op.dequantize(w, relax.const(1.0), relax.const(np.int8(0))))
            y = builder.emit(op.matmul(builder.emit(op.dequantize(q, relax.const(1.0), zero)), dw))
            q = builder.emit(op.quantize(y, relax.const(1e7), zero, out_dtype="int8"))
            out = builder.emit_output(op.dequantize(q, relax.const(1e7), zero))
        builder.emit_func_output(out)
    lowered = LowerQDQ()(attach_params(builder.get(), {"w": np.full((depth, 1), 127, np.int8)}))
    assert operators(lowered) == ["quantize", "wdense", "dequantize"]
    image = np.full((1, depth), 255.0, np.float32)
    [found] = run(lowered, [image])
    assert found.item() == np.float32(227e7)  # 2266950000, which is more than 2**31
    np.testing.assert_array_equal(running.compiled(lowered, [image])[0], found)
