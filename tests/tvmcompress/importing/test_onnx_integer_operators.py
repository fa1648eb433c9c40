"""Integer ONNX operators one by one against ONNX Runtime, and what quantized models are refused for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tvmcompress
from tvmcompress.errors import UnsupportedOperatorError, UserError
from tvmcompress.importing import from_onnx

from .quantizing import float_model, meaning

SHAPE = [1, 4, 6, 6]
RNG = np.random.default_rng(0)
MS = "com.microsoft"


def integer_model(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int], dtype: type = np.uint8
) -> onnx.ModelProto:
    """Quantize x to xq (scale 0.02), compute yq, dequantize it (scale 0.0313) to y."""
    middle = 128 if dtype is np.uint8 else 0
    ends = {
        "xs": np.float32(0.02),
        "xz": dtype(middle - 8),
        "ys": np.float32(0.0313),
        "yz": dtype(middle + 3),
    }
    first = helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"])
    last = helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"])
    return float_model([first, *nodes, last], {**ends, **weights}, shape)


def assert_same(proto: onnx.ModelProto, steps: int = 1, rate: float = 0.02) -> tvmcompress.Model:
    """Imported, the model gives ONNX Runtime's result, but for sums that tip over by a step."""
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    x = RNG.standard_normal((40, *shape[1:])).astype("float32")
    model = from_onnx(proto)
    got, wanted = model.run(x)[0], meaning(proto, x)
    difference = np.abs(got - wanted)
    assert difference.max() <= steps * 0.0313 + 1e-5
    assert (difference > 1e-5).mean() <= rate
    assert np.abs(wanted).max() > 0.3
    return model


def integers(*shape: int, low: int = -60, high: int = 60, dtype: type = np.int8) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_qlinear_conv(dtype: type) -> None:
    scales = np.linspace(0.004, 0.01, 5).astype("float32")
    weights = {"w": integers(5, 4, 3, 3), "ws": scales, "wz": np.zeros(5, np.int8), "b": integers(5, dtype=np.int32)}
    operands = ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    node = helper.make_node("QLinearConv", operands, ["yq"], pads=[1, 1, 1, 1], strides=[2, 2])
    model = assert_same(integer_model([node], weights, SHAPE, dtype))
    assert {name: value.shape for name, value in model.params.items()} == {"w": (5, 4, 3, 3), "b": (1, 5, 1, 1)}


def test_qlinear_conv_with_unsigned_weights() -> None:
    weights = {"w": integers(5, 4, 1, 1, low=68, high=188, dtype=np.uint8), "ws": np.float32(0.01), "wz": np.uint8(128)}
    node = helper.make_node("QLinearConv", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["yq"])
    model = assert_same(integer_model([node], weights, SHAPE))
    np.testing.assert_array_equal(model.params["w.1"], (weights["w"].astype(int) - 128).astype(np.int8))


@pytest.mark.parametrize("per_column", [False, True])
def test_qlinear_matmul(per_column: bool) -> None:
    scale = np.linspace(0.004, 0.01, 5).astype("float32") if per_column else np.float32(0.01)
    weights = {"w": integers(6, 5), "ws": scale, "wz": np.zeros(np.shape(scale), np.int8)}
    node = helper.make_node("QLinearMatMul", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["yq"])
    assert_same(integer_model([node], weights, [1, 6]))


@pytest.mark.parametrize("transposed", [0, 1])
def test_qgemm(transposed: int) -> None:
    weights = {
        "w": integers(*((5, 6) if transposed else (6, 5))),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
        "b": integers(5, dtype=np.int32),
    }
    operands = ["xq", "xs", "xz", "w", "ws", "wz", "b", "ys", "yz"]
    node = helper.make_node("QGemm", operands, ["yq"], transB=transposed, domain=MS)
    model = assert_same(integer_model([node], weights, [1, 6]))
    assert model.params["w"].shape == (6, 5)


_X, _Y = ["xq", "xs", "xz"], ["ys", "yz"]


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("QLinearAdd", [*_X, *_X, *_Y], ["yq"], domain=MS),
        helper.make_node("QLinearMul", [*_X, *_X, *_Y], ["yq"], domain=MS),
        helper.make_node("QLinearGlobalAveragePool", [*_X, *_Y], ["yq"], domain=MS, channels_last=0),
        helper.make_node("QLinearAveragePool", [*_X, *_Y], ["yq"], domain=MS, kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QLinearConcat", [*_Y, *_X, *_X], ["yq"], domain=MS, axis=1),
        helper.make_node("QLinearSigmoid", [*_X, *_Y], ["yq"], domain=MS),
        helper.make_node("QLinearLeakyRelu", [*_X, *_Y], ["yq"], domain=MS, alpha=0.1),
        helper.make_node("QLinearSoftmax", [*_X, *_Y], ["yq"], domain=MS, axis=-1, opset=13),
    ],
    ids=lambda node: node.op_type,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_operators_of_onnx_runtime(node: onnx.NodeProto, dtype: type) -> None:
    # Its kernels round after tables and fixed-point sums of their own.
    assert_same(integer_model([node], {}, SHAPE, dtype), rate=0.2)


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (helper.make_node("MaxPool", ["xq"], ["m"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), {}),
        (helper.make_node("Reshape", ["xq", "s"], ["m"]), {"s": np.array([1, 9, 4, 4])}),
        (helper.make_node("Transpose", ["xq"], ["m"], perm=[0, 2, 3, 1]), {}),
        (helper.make_node("Flatten", ["xq"], ["m"]), {}),
        (
            helper.make_node("Pad", ["xq", "p", "v"], ["m"]),
            {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": np.uint8(120)},
        ),
        (helper.make_node("Concat", ["xq", "xq"], ["m"], axis=1), {}),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_operators_that_move_integers(node: onnx.NodeProto, weights: dict[str, np.ndarray]) -> None:
    end = helper.make_node("DequantizeLinear", ["m", "xs", "xz"], ["y"])
    ends = {"xs": np.float32(0.02), "xz": np.uint8(120)}
    first = helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"])
    proto = float_model([first, node, end], {**ends, **weights}, SHAPE)
    x = RNG.standard_normal((10, *SHAPE[1:])).astype("float32")
    np.testing.assert_allclose(from_onnx(proto).run(x)[0], meaning(proto, x), atol=1e-6)


@pytest.mark.parametrize("kind", ["ConvInteger", "MatMulInteger"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_integer_sums_that_are_scaled_afterwards(kind: str, per_channel: bool) -> None:
    shape = (5, 4, 1, 1) if kind == "ConvInteger" else (6, 5)
    factor = np.linspace(1e-4, 2e-4, 5).astype("float32") if per_channel else np.float32(2e-4)
    if per_channel and kind == "ConvInteger":
        factor = factor.reshape(1, 5, 1, 1)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node(kind, ["xq", "w", "xz"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "factor"], ["y"]),
    ]
    weights = {"xs": np.float32(0.02), "xz": np.uint8(120), "w": integers(*shape), "factor": factor}
    proto = float_model(nodes, weights, SHAPE if kind == "ConvInteger" else [1, 6])
    if kind == "MatMulInteger":  # its zero point of the weights is that of their type
        nodes[1].input.append("wz")
        weights["wz"] = np.int8(0)
        proto = float_model(nodes, weights, [1, 6])
    x = RNG.standard_normal((10, *(SHAPE[1:] if kind == "ConvInteger" else [6]))).astype("float32")
    if kind == "ConvInteger":  # ONNX Runtime has no kernel for int8 weights here
        quantized = np.clip(np.rint(x / np.float32(0.02)) + 120, 0, 255) - 120
        wanted = np.einsum("nchw,oc->nohw", quantized, weights["w"][..., 0, 0].astype(float)) * factor
    else:
        wanted = meaning(proto, x)
    np.testing.assert_allclose(from_onnx(proto).run(x)[0], wanted, rtol=1e-5, atol=1e-5)


# What is refused

_GOOD = {"s": np.float32(0.1), "z": np.int8(0), "w": integers(4, 4, 1, 1), "ws": np.full(4, 0.01, np.float32)}


def qdq_model(weights: dict[str, Any], quantize: list[str], dequantize: list[str], **options: Any) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", quantize, ["q"], name="first"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", dequantize, ["wd"], name="weights", **options),
        helper.make_node("Conv", ["d", "wd"], ["y"]),
    ]
    return float_model(nodes, {**_GOOD, **weights}, SHAPE)


@pytest.mark.parametrize(
    ("weights", "quantize", "dequantize", "message"),
    [
        ({}, ["x", ""], ["w", "ws", "wz"], "node 'first' .* has no scale"),
        ({}, ["x", "x", "z"], ["w", "ws", "wz"], "scale of node 'first' .*, 'x', is not constant"),
        ({}, ["x", "s", "x"], ["w", "ws", "wz"], "zero point of node 'first' .*, 'x', is not constant"),
        ({}, ["x", "ws", "wz"], ["w", "ws", "wz"], "node 'first' .* one scale a channel for an activation"),
        ({}, ["x", "s", "z"], ["w", "ws", "z"], "node 'weights' .* has 4 scales but 1 zero points"),
        ({}, ["x", "s", "z"], ["w", "s", "wz"], "node 'weights' .* has 1 scales but 4 zero points"),
        ({"ws": np.full(3, 0.1, "f")}, ["x", "s", "z"], ["w", "ws"], r"3 scales along axis 0 of .* shape \[4, 4, 1, 1\]"),
        ({"ws": np.zeros(4, "f")}, ["x", "s", "z"], ["w", "ws"], "node 'weights' .* not positive and finite"),
        ({"s": np.float32(np.inf)}, ["x", "s", "z"], ["w", "ws"], "node 'first' .* not positive and finite"),
        ({"z": np.uint16(0)}, ["x", "s", "z"], ["w", "ws"], "node 'first' .* gives uint16; only int8, uint8 and int16"),
        ({"wz": np.zeros(4, np.uint8)}, ["x", "s", "z"], ["w", "ws", "wz"], "reads int8, but its zero point is uint8"),
    ],
)
def test_parameters_that_are_refused(weights: dict[str, Any], quantize: list[str], dequantize: list[str], message: str) -> None:
    proto = qdq_model({"wz": np.zeros(4, np.int8), **weights}, quantize, dequantize, axis=0)
    with pytest.raises(UserError, match=message) as caught:
        from_onnx(proto)
    assert "\n" not in str(caught.value)


def test_what_is_well_formed_is_not_refused() -> None:
    from_onnx(qdq_model({}, ["x", "s", "z"], ["w", "ws"], axis=0))
    from_onnx(qdq_model({"z": np.int8(3)}, ["x", "s", "z"], ["w", "s"]))


def test_weights_that_are_quantized_alone() -> None:
    """With float activations the model is a float one, which can be quantized as a whole."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0),
        helper.make_node("Conv", ["x", "wd", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    proto = float_model(nodes, {**_GOOD, "b": np.linspace(-1, 1, 4, dtype="float32")}, SHAPE)
    model = from_onnx(proto)
    assert {value.dtype.name for value in model.params.values()} == {"float32"}
    assert "quantized weights became float" in model.provenance[-1]
    x = RNG.standard_normal((10, *SHAPE[1:])).astype("float32")
    np.testing.assert_allclose(model.run(x)[0], meaning(proto, x), atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [
                helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s2", "z2"], name="dynamic"),
                helper.make_node("DequantizeLinear", ["q", "s2", "z2"], ["y"]),
            ],
            "node 'dynamic' .* chooses a scale at run time",
        ),
        (
            [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["y"])],
            "output 'y' of onnx is int8; give a model whose outputs are float",
        ),
        (
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT, name="cast"),
            ],
            "node 'cast' .* reads the quantized tensor 'q'",
        ),
        (
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("QLinearWhere", ["q"], ["y"], domain=MS, name="where"),
            ],
            "node 'where' .* cannot be imported",
        ),
        (
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                helper.make_node("MatMulInteger", ["q", "w"], ["y"], name="sums"),
            ],
            "node 'sums' .* must be cast to float and multiplied by a constant",
        ),
    ],
)
def test_graphs_that_are_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_onnx(float_model(nodes, _GOOD, SHAPE))


def test_inputs_of_integers_are_refused() -> None:
    proto = float_model([helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"])], _GOOD, SHAPE)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    with pytest.raises(UserError, match="give a model whose inputs are float"):
        from_onnx(proto)


def test_channels_last_is_refused() -> None:
    node = helper.make_node("QLinearGlobalAveragePool", [*_X, *_Y], ["yq"], domain=MS, channels_last=1)
    with pytest.raises(UnsupportedOperatorError, match="channels-last"):
        from_onnx(integer_model([node], {}, SHAPE))
