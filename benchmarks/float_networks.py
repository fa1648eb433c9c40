"""Float networks with random weights as ONNX files, for timing: what they take depends on shapes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Writer:
    """A graph in the making.

    Args:
        seed: Of the weights.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """An operator's result."""
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def convolution(
        self,
        x: str,
        channels: int,
        outputs: int,
        kernel: tuple[int, ...],
        stride: int = 1,
        gain: float = 1.0,
        relu: bool = True,
    ) -> str:
        """A convolution with bias, padded to keep its size; results have `gain` times the spread of what comes in."""
        weight = self._random.standard_normal((outputs, channels, *kernel))
        weight *= gain * np.sqrt(2.0 / (channels * np.prod(kernel)))
        names = [self._constant(weight), self._constant(self._random.standard_normal(outputs) * 0.1)]
        pads = [size // 2 for size in kernel] * 2
        made = self.node("Conv", x, *names, pads=pads, strides=[stride] * len(kernel), kernel_shape=list(kernel))
        return self.node("Relu", made) if relu else made

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """A layer of classes."""
        weight = self._random.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        return self.node("Gemm", x, self._constant(weight), self._constant(np.zeros(outputs)))

    def save(self, shape: tuple[int, ...], result: str, path: Path) -> Path:
        """Write the graph; its input is named `x`, and any number of samples may come at once."""
        free = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["samples", *shape[1:]])
        graph = helper.make_graph(
            self._nodes, path.stem, [free], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)], self._weights
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    def _constant(self, value: np.ndarray) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name


SHAPES = {"resnet50": (1, 3, 224, 224), "audio": (1, 1, 144_160)}
"""Of one sample."""


def resnet50(path: Path) -> Path:
    """ResNet-50 (arXiv:1512.03385), batch normalizations folded."""
    w = _Writer(0)
    x = w.node("MaxPool", w.convolution("x", 3, 64, (7, 7), 2), kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    channels = 64
    for inner, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            by = stride if index == 0 else 1
            y = w.convolution(w.convolution(x, channels, inner, (1, 1)), inner, inner, (3, 3), by)
            y = w.convolution(y, inner, 4 * inner, (1, 1), gain=0.3, relu=False)
            if index == 0:
                x = w.convolution(x, channels, 4 * inner, (1, 1), by, gain=0.7, relu=False)
            x, channels = w.node("Relu", w.node("Add", y, x)), 4 * inner
    pooled = w.node("Flatten", w.node("GlobalAveragePool", x))
    return w.save(SHAPES["resnet50"], w.dense(pooled, channels, 1000), path)


def audio(path: Path) -> Path:
    """Convolutions over nine seconds of sound at 16 kHz, first at every sample, then at fewer and fewer."""
    w = _Writer(1)
    x, channels = "x", 1
    for outputs, stride in ((24, 1), (32, 2), (48, 2), (64, 2), (96, 2), (128, 2)):
        x = w.convolution(x, channels, outputs, (15,), stride)
        x = w.convolution(x, outputs, outputs, (15,))
        channels = outputs
    pooled = w.node("Flatten", w.node("GlobalAveragePool", x))
    return w.save(SHAPES["audio"], w.dense(pooled, channels, 50), path)


NETWORKS = {"resnet50": resnet50, "audio": audio}
