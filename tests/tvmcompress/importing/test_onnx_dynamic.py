"""Importing models that ONNX Runtime has quantized dynamically: float, with the real values of the quantized weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import quantize_dynamic

import tvmcompress
from tvmcompress.errors import UserError
from tvmcompress.importing import from_onnx

from .quantizing import INT8, UINT8, float_model, meaning, small_network

# The reference is ONNX's own: on AVX2, sums of products with signed weights saturate in ONNX Runtime.
RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("float32")


def node(kind: str, *inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], name=output, **attributes)


def mlp() -> onnx.ModelProto:
    nodes = [
        node("MatMul", "x", "a.weight", output="a"),
        node("Add", "a", "a.bias", output="a_sum"),
        node("Relu", "a_sum", output="a_relu"),
        node("Gemm", "a_relu", "b.weight", "b.bias", output="y", transB=1),
    ]
    weights = {"a.weight": random(20, 16), "a.bias": random(16), "b.weight": random(7, 16), "b.bias": random(7)}
    return float_model(nodes, weights, [1, 20])


def convolution_1d() -> onnx.ModelProto:
    options = {"group": 2, "strides": [2], "pads": [1, 1]}
    weights = {"c.weight": random(4, 2, 3), "c.bias": random(4)}
    return float_model([node("Conv", "x", "c.weight", "c.bias", output="y", **options)], weights, [1, 4, 9])


def attention() -> onnx.ModelProto:
    nodes = [
        node("MatMul", "x", "q.weight", output="q"),
        node("Transpose", "q", output="k", perm=[0, 2, 1]),
        node("MatMul", "q", "k", output="scores"),
        node("Softmax", "scores", output="shares", axis=-1),
        node("MatMul", "shares", "q", output="y"),
    ]
    return float_model(nodes, {"q.weight": random(8, 6)}, [1, 5, 8])


def weight_on_the_left() -> onnx.ModelProto:
    return float_model([node("MatMul", "left", "x", output="y")], {"left": random(4, 5)}, [1, 5, 8])


def dynamic(proto: onnx.ModelProto, folder: Path, **options: Any) -> Path:
    onnx.save(proto, folder / "float.onnx")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises on its own defaults
    try:
        quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx", **options)
    finally:
        root.setLevel(level)
    return folder / "dynamic.onnx"


def decibels(value: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / ((value - expected) ** 2).sum()))


def dequantized(path: Path, name: str) -> np.ndarray:
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    value, zero, scale = (constants[f"{name}_{part}"] for part in ("quantized", "zero_point", "scale"))
    return (value.astype("float32") - zero.astype("float32")) * scale


@pytest.mark.parametrize("kind", [INT8, UINT8], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_tensor"])
@pytest.mark.parametrize("make", [mlp, small_network, convolution_1d, attention, weight_on_the_left])
def test_near_the_reference(tmp_path: Path, make: Any, per_channel: bool, kind: Any) -> None:
    """Apart from the rounding of activations, which the import leaves out."""
    proto = make()
    both = {"MatMulConstBOnly": make not in (attention, weight_on_the_left)}
    path = dynamic(proto, tmp_path, per_channel=per_channel, weight_type=kind, extra_options=both)
    model = tvmcompress.load(path)
    assert "became float" in model.provenance[-1]
    assert {value.dtype.name for value in model.params.values()} == {"float32"}
    x = random(16, *model.inputs[0].shape[1:])
    found = np.concatenate([model.run(x[index : index + 1])[0] for index in range(len(x))])
    # It quantizes a sample at a time, as we compute.
    reference = ReferenceEvaluator(str(path))
    expected = np.concatenate([reference.run(None, {model.inputs[0].name: x[index : index + 1]})[0] for index in range(len(x))])
    assert decibels(found, expected) > 35


@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_tensor"])
def test_exactly_the_dequantized_weights(tmp_path: Path, per_channel: bool) -> None:
    """The float model that has them computes the same, to the last bits."""
    proto = mlp()
    path = dynamic(proto, tmp_path, per_channel=per_channel)
    first, second = dequantized(path, "a.weight"), dequantized(path, "b.weight_Transposed")
    for tensor, value in zip(proto.graph.initializer, (first, None, second.T, None)):
        if value is not None:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    model = tvmcompress.load(path)
    assert set(model.params) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    np.testing.assert_array_equal(model.params["a.weight"], first)
    x = random(1, 20)
    np.testing.assert_allclose(model.run(x)[0], meaning(proto, x), rtol=1e-5, atol=1e-5)


def test_names_and_shapes_are_those_of_the_float_model(tmp_path: Path) -> None:
    path = dynamic(small_network(), tmp_path)
    shapes = [
        {name: value.shape for name, value in tvmcompress.load(place).params.items()}
        for place in (path, tmp_path / "float.onnx")
    ]
    assert shapes[0] == shapes[1]


def test_tables_that_are_looked_up(tmp_path: Path) -> None:
    nodes = [
        node("Gather", "table", "x", output="g"),
        node("LayerNormalization", "g", "gain", "shift", output="n"),
        node("MatMul", "n", "weight", output="y"),
    ]
    weights = {"table": random(30, 6), "gain": random(6), "shift": random(6), "weight": random(6, 4)}
    proto = float_model(nodes, weights, [1, 5], opset=17)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    path = dynamic(proto, tmp_path, weight_type=UINT8)
    model = tvmcompress.load(path)
    assert {value.dtype.name for value in model.params.values()} == {"float32"}
    ids = RNG.integers(0, 30, (1, 5))
    assert decibels(model.run(ids)[0], onnxruntime.InferenceSession(path).run(None, {"x": ids})[0]) > 35


@pytest.mark.parametrize(
    ("scale", "zero"),
    [
        (np.ones((3, 1), "float32"), np.uint8(3)),  # a factor for each row of the results is none of the weight's
        (np.float32(0.1), np.zeros(5, "uint8")),  # as many zero points as no axis has
    ],
)
def test_other_forms_are_refused(scale: np.ndarray, zero: np.ndarray) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="dynamic"),
        helper.make_node("MatMulInteger", ["q", "w", "z", "wz"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["factor"]),
        helper.make_node("Mul", ["cast", "factor"], ["y"]),
    ]
    weights = {"w": RNG.integers(0, 255, (6, 4)).astype("uint8"), "ws": scale, "wz": np.asarray(zero)}
    with pytest.raises(UserError, match="node 'dynamic' .* chooses a scale at run time|contradict"):
        from_onnx(float_model(nodes, weights, [3, 6]))
