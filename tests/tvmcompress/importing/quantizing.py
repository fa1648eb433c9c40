"""Float ONNX models, quantized by ONNX Runtime, and what they mean."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

INT8, UINT8 = QuantType.QInt8, QuantType.QUInt8
QDQ, QOPERATOR = QuantFormat.QDQ, QuantFormat.QOperator


class Samples(CalibrationDataReader):
    """Calibration samples one by one."""

    def __init__(self, x: np.ndarray, name: str = "x") -> None:
        self._left = iter([{name: x[index : index + 1]} for index in range(len(x))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def quantize(
    float_path: Path, samples: Samples, output: Path, kind: QuantFormat, activations: QuantType, **options: Any
) -> onnx.ModelProto:
    """ONNX Runtime's static quantization, with int8 weights unless `options` say otherwise."""
    root = logging.getLogger()
    level, root_level = root.level, logging.ERROR
    root.setLevel(root_level)  # it advises on its own defaults
    try:
        quantize_static(
            str(float_path),
            str(output),
            samples,
            quant_format=kind,
            activation_type=activations,
            **{"weight_type": INT8, **options},
        )
    finally:
        root.setLevel(level)
    return onnx.load(output)


def meaning(proto: onnx.ModelProto | Path, x: np.ndarray, name: str | None = None) -> np.ndarray:
    """What ONNX Runtime makes of samples when it computes operator by operator, without integer kernels of its own."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    key = name or session.get_inputs()[0].name
    return np.concatenate([session.run(None, {key: x[index : index + 1]})[0] for index in range(len(x))])


def float_model(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int], opset: int = 13
) -> onnx.ModelProto:
    """A float model from x to y."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def network_with_normalization(seed: int = 0) -> onnx.ModelProto:
    """Convolutions with batch normalization that nobody has folded; (1, 3, 12, 12) to (1, 8)."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    x = "x"
    for name, inputs in (("first", 3), ("second", 8)):
        weights[f"{name}.weight"] = (rng.standard_normal((8, inputs, 3, 3)) / np.sqrt(4.5 * inputs)).astype("float32")
        nodes.append(helper.make_node("Conv", [x, f"{name}.weight"], [f"{name}.out"], pads=[1, 1, 1, 1]))
        statistics = [f"{name}_bn.{part}" for part in ("weight", "bias", "mean", "var")]
        values = [rng.standard_normal(8), rng.standard_normal(8) / 4, rng.standard_normal(8) / 4, rng.random(8) + 0.5]
        weights |= {key: value.astype("float32") for key, value in zip(statistics, values)}
        nodes.append(helper.make_node("BatchNormalization", [f"{name}.out", *statistics], [f"{name}_bn.out"]))
        nodes.append(helper.make_node("Relu", [f"{name}_bn.out"], [f"{name}.relu"]))
        x = f"{name}.relu"
    # What ONNX Runtime's integer form ends in it quantizes only behind an operator that has one.
    weights["last.weight"] = (rng.standard_normal((8, 8, 1, 1)) / 3).astype("float32")
    nodes.append(helper.make_node("Conv", [x, "last.weight"], ["last"]))
    nodes += [helper.make_node("GlobalAveragePool", ["last"], ["mean"]), helper.make_node("Flatten", ["mean"], ["y"])]
    return float_model(nodes, weights, [1, 3, 12, 12])


def small_network(seed: int = 0) -> onnx.ModelProto:
    """Everything that image classifiers for small devices are made of; (1, 3, 12, 12) to (1, 6)."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {"flat": np.array([1, -1]), "low": np.float32(0), "high": np.float32(6)}
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(x: str, name: str, inputs: int, outputs: int, kernel: int, groups: int = 1, bias: bool = True) -> str:
        fan = inputs // groups * kernel * kernel
        shape = (outputs, inputs // groups, kernel, kernel)
        weights[f"{name}.weight"] = (rng.standard_normal(shape) * np.sqrt(2 / fan)).astype("float32")
        if bias:
            weights[f"{name}.bias"] = (rng.standard_normal(outputs) / 5).astype("float32")
        operands = [x, f"{name}.weight", *([f"{name}.bias"] if bias else [])]
        pads = [kernel // 2] * 4
        return add("Conv", operands, f"{name}.out", pads=pads, group=groups, kernel_shape=[kernel, kernel])

    stem = add("Relu", [conv("x", "stem", 3, 8, 3)], "stem.relu")
    depthwise = add("Clip", [conv(stem, "dw", 8, 8, 3, 8), "low", "high"], "dw.clip")
    point = conv(depthwise, "pw", 8, 8, 1, bias=False)
    total = add("Add", [stem, point], "total")
    pooled = add("MaxPool", [add("Relu", [total], "total.relu")], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    averaged = add("AveragePool", [point], "averaged", kernel_shape=[2, 2], strides=[2, 2])
    joined = add("Concat", [pooled, averaged], "joined", axis=1)
    last = add("Relu", [conv(joined, "last", 16, 10, 3)], "last.relu")
    flat = add("Reshape", [add("GlobalAveragePool", [last], "mean"), "flat"], "features")
    weights["fc.weight"] = (rng.standard_normal((6, 10)) / 2).astype("float32")
    weights["fc.bias"] = rng.standard_normal(6).astype("float32")
    logits = add("Gemm", [flat, "fc.weight", "fc.bias"], "logits", transB=1)
    add("Softmax", [logits], "y", axis=1)
    return float_model(nodes, weights, [1, 3, 12, 12])
