"""ResNet-18 and MobileNetV2 at 224x224 as int8 TFLite files with random weights, for counting instructions.

Written tensor by tensor, so that what runs them gets the same file. What is counted depends on shapes alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.tvmcompress.importing.tflite_files import File

_SCALE = 0.05
_SAME, _VALID = 0, 1
_RELU, _RELU6 = 1, 3


class _Writer:
    """A file in the making, with layers.

    Args:
        seed: Of the weights.
    """

    def __init__(self, seed: int) -> None:
        self.file, self._random = File(), np.random.default_rng(seed)
        self._padding = 0

    def padded(self, x: int, shape: tuple[int, ...], around: int) -> tuple[int, tuple[int, ...]]:
        """`x` with a border, as PyTorch's networks have it where they go two pixels at a time."""
        sizes = np.array([[0, 0], [around, around], [around, around], [0, 0]])
        larger = tuple(int(size + sum(pad)) for size, pad in zip(shape, sizes))
        out = self._tensor(larger)
        self.file.operator("PAD", [x, self.file.constant(sizes)], [out], "PadOptions")
        return out, larger

    def convolution(
        self, x: int, shape: tuple[int, ...], outputs: int, kernel: int, stride: int = 1, activation: int = 0
    ) -> tuple[int, tuple[int, ...]]:
        """A convolution; padded as PyTorch pads."""
        if stride > 1 and kernel > 1:
            x, shape = self.padded(x, shape, kernel // 2)
        size = (shape[1] - kernel) // stride + 1 if stride > 1 else shape[1]
        weights = (outputs, kernel, kernel, shape[3])
        made = (1, size, size, outputs)
        out = self._tensor(made)
        self.file.operator(
            "CONV_2D",
            [x, *self._constants(weights, 0, kernel * kernel * shape[3])],
            [out],
            "Conv2DOptions",
            padding=_VALID if stride > 1 else _SAME,
            strideW=stride,
            strideH=stride,
            fusedActivationFunction=activation,
        )
        return out, made

    def depthwise(self, x: int, shape: tuple[int, ...], stride: int) -> tuple[int, tuple[int, ...]]:
        """A depthwise convolution 3x3 with ReLU6."""
        if stride > 1:
            x, shape = self.padded(x, shape, 1)
        size = (shape[1] - 3) // stride + 1 if stride > 1 else shape[1]
        made = (1, size, size, shape[3])
        out = self._tensor(made)
        self.file.operator(
            "DEPTHWISE_CONV_2D",
            [x, *self._constants((1, 3, 3, shape[3]), 3, 9)],
            [out],
            "DepthwiseConv2DOptions",
            padding=_VALID if stride > 1 else _SAME,
            strideW=stride,
            strideH=stride,
            depthMultiplier=1,
            fusedActivationFunction=_RELU6,
        )
        return out, made

    def add(self, x: int, y: int, shape: tuple[int, ...], activation: int = 0) -> int:
        """A sum."""
        out = self._tensor(shape)
        self.file.operator("ADD", [x, y], [out], "AddOptions", fusedActivationFunction=activation)
        return out

    def head(self, x: int, shape: tuple[int, ...], classes: int = 1000) -> int:
        """The mean over all pixels, and a layer of classes."""
        mean, out = self._tensor((1, shape[3])), self._tensor((1, classes))
        self.file.operator("MEAN", [x, self.file.constant([1, 2])], [mean], "ReducerOptions")
        self.file.operator(
            "FULLY_CONNECTED", [mean, *self._constants((classes, shape[3]), None, shape[3])], [out], "FullyConnectedOptions"
        )
        return out

    def _tensor(self, shape: tuple[int, ...]) -> int:
        return self.file.tensor(shape, "int8", _SCALE, -10)

    def _constants(self, shape: tuple[int, ...], axis: int | None, taps: int) -> tuple[int, int]:
        """Weights and biases; results keep the spread of what comes in."""
        channels = shape[0 if axis is None else axis]
        scales = self._random.uniform(0.5, 1.5, channels if axis is not None else 1) / (73 * np.sqrt(taps))
        weights = self._random.integers(-127, 128, shape).astype(np.int8)
        biases = self._random.integers(-1000, 1000, channels).astype(np.int32)
        return (
            self.file.tensor(shape, "int8", scales, data=weights, axis=axis or 0),
            self.file.tensor((channels,), "int32", scales * _SCALE, data=biases),
        )


def resnet18() -> bytes:
    """ResNet-18 (arXiv:1512.03385)."""
    w, shape = _Writer(0), (1, 224, 224, 3)
    x = w.file.input(shape, "int8", _SCALE, -10)
    x, shape = w.convolution(x, shape, 64, 7, 2, _RELU)
    x, shape = w.padded(x, shape, 1)
    shape = (1, (shape[1] - 3) // 2 + 1, (shape[2] - 3) // 2 + 1, 64)
    pooled = w.file.tensor(shape, "int8", _SCALE, -10)
    sizes = {"padding": _VALID, "strideW": 2, "strideH": 2, "filterWidth": 3, "filterHeight": 3}
    w.file.operator("MAX_POOL_2D", [x], [pooled], "Pool2DOptions", **sizes)
    x = pooled
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for index in range(2):
            by = stride if index == 0 else 1
            y, inner = w.convolution(x, shape, outputs, 3, by, _RELU)
            y, inner = w.convolution(y, inner, outputs, 3)
            if by > 1:
                x, shape = w.convolution(x, shape, outputs, 1, by)
            x, shape = w.add(y, x, inner, _RELU), inner
    return w.file.bytes(w.head(x, shape))


def mobilenet_v2() -> bytes:
    """MobileNetV2 (arXiv:1801.04381)."""
    w, shape = _Writer(1), (1, 224, 224, 3)
    x = w.file.input(shape, "int8", _SCALE, -10)
    x, shape = w.convolution(x, shape, 32, 3, 2, _RELU6)
    for expansion, outputs, count, stride in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for index in range(count):
            before, entered = x, shape
            by = stride if index == 0 else 1
            if expansion > 1:
                x, shape = w.convolution(x, shape, expansion * shape[3], 1, 1, _RELU6)
            x, shape = w.depthwise(x, shape, by)
            x, shape = w.convolution(x, shape, outputs, 1)
            if shape == entered:
                x = w.add(x, before, shape)
    x, shape = w.convolution(x, shape, 1280, 1, 1, _RELU6)
    return w.file.bytes(w.head(x, shape))
