"""Paths of modules from the names of nodes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmcompress.importing.onnx_names import module_path, name_weights


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/1/body/body.0/body.0.0/Conv", "1.body.0.0"),
        ("/fc/Gemm", "fc"),
        ("/Add_1", ""),
        ("Conv_12", ""),
        ("", ""),
    ],
)
def test_module_path(node: str, path: str) -> None:
    assert module_path(node) == path


def test_only_nameless_weights_are_named_and_each_once() -> None:
    shapes = {"onnx::Conv_1": (4, 3, 1, 1), "onnx::Conv_2": (4,), "mine": (4, 4, 1, 1), "onnx::Mul_3": (1,)}
    tensors = [numpy_helper.from_array(np.ones(shape, "float32"), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "onnx::Conv_1", "onnx::Conv_2"], ["a"], name="/stem/Conv"),
        helper.make_node("Conv", ["x", "onnx::Conv_1", "onnx::Conv_2"], ["b"], name="/again/Conv"),
        helper.make_node("Conv", ["a", "mine"], ["c"], name="/second/Conv"),
        helper.make_node("Mul", ["c", "onnx::Mul_3"], ["y"], name="/scale/Mul"),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 2, 2))
    graph = helper.make_graph(nodes, "net", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors)
    name_weights(graph)
    assert [list(node.input[1:]) for node in graph.node] == [
        ["stem.weight", "stem.bias"],
        ["stem.weight", "stem.bias"],
        ["mine"],
        ["onnx::Mul_3"],
    ]
    assert {tensor.name for tensor in graph.initializer} == {"stem.weight", "stem.bias", "mine", "onnx::Mul_3"}
