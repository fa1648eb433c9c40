"""For every kind of TFLite operator files with one operator, of drawn shapes, scales and options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .tflite_files import File

SAME, VALID = 0, 1


class Draw(Protocol):
    """Where numbers come from: hypothesis, or a random generator."""

    def integer(self, low: int, high: int) -> int:
        """An integer of a closed range."""
        ...


class RandomDraw:
    """Numbers of a seeded generator."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))


@dataclass
class Made:
    """A file and its inputs."""

    content: bytes
    inputs: list[np.ndarray]


class Maker:
    """Draws what the operators below are made of.

    Attributes:
        dtype: Of the activations: int8, int16 or float32.
    """

    def __init__(self, draw: Draw, dtype: str = "int8") -> None:
        self.draw, self.dtype, self.file = draw, dtype, File()
        self.rng = np.random.default_rng(draw.integer(0, 2**31))

    @property
    def real(self) -> bool:
        return self.dtype == "float32"

    def pick(self, *values):
        return values[self.draw.integer(0, len(values) - 1)]

    def flag(self) -> bool:
        return bool(self.draw.integer(0, 1))

    def scale(self) -> float:
        """Round numbers, which make ties, as well as others."""
        value = self.pick(0.01, 0.02, 0.05, 0.1, 0.5, 1 / 128, 0.0235294122248888, 0.0039215688593685627, None)
        if value is None:
            value = 10 ** (-self.draw.integer(500, 3000) / 1000)
        return float(np.float32(value / (256 if self.dtype == "int16" else 1)))

    def zero(self) -> int:
        return 0 if self.dtype == "int16" else self.pick(0, -128, 127, self.draw.integer(-128, 127))

    def shape(self, rank: int = 4) -> list[int]:
        return [1, *(self.draw.integer(1, 6) for _ in range(rank - 1))]

    def quantization(self) -> tuple:
        return () if self.real else (self.scale(), self.zero())

    def tensor(self, shape: Sequence[int], *quantization) -> int:
        return self.file.tensor(shape, self.dtype, *(quantization or self.quantization()))

    def input(self, shape: Sequence[int], *quantization) -> int:
        return self.file.input(shape, self.dtype, *(quantization or self.quantization()))

    def value(self, shape: Sequence[int]) -> np.ndarray:
        if self.real:
            return self.rng.normal(0, 2, shape).astype(np.float32)
        info = np.iinfo(self.dtype)
        return self.rng.integers(info.min, info.max + 1, shape).astype(self.dtype)

    def operand(self, shape: Sequence[int], *quantization) -> int:
        """An input or a constant."""
        if self.flag() and self.file.inputs:
            return self.file.tensor(shape, self.dtype, *(quantization or self.quantization()), data=self.value(shape))
        return self.input(shape, *quantization)

    def weight(self, shape: Sequence[int], axis: int, x: int, bits: int = 8) -> tuple[int, int]:
        """Weight and bias."""
        channels = shape[axis]
        if self.real:
            weight = self.file.tensor(shape, "float32", data=self.rng.normal(0, 0.5, shape).astype(np.float32))
            return weight, self.file.tensor([channels], "float32", data=self.rng.normal(0, 1, channels).astype(np.float32))
        size = channels if self.flag() else 1
        scales = np.array([self.pick(0.01, 0.02, 1 / 64, 10 ** (-self.draw.integer(1500, 3000) / 1000)) for _ in range(size)])
        high = 7 if bits == 4 else 127
        values = self.rng.integers(-high, high + 1, shape).astype(np.int8)
        weight = self.file.tensor(shape, "int4" if bits == 4 else "int8", scales, data=values, axis=axis)
        x_scale = self.file.tensors[x].quantization.scale[0]
        kind = "int64" if self.dtype == "int16" else "int32"
        offsets = self.rng.integers(-5000, 5000, channels).astype(kind)
        return weight, self.file.tensor([channels], kind, scales * x_scale, data=offsets)

    def made(self, *outputs: int) -> Made:
        content = self.file.bytes(*outputs)
        inputs = []
        for index in self.file.inputs:
            tensor = self.file.tensors[index]
            inputs.append(self.value(tensor.shape))
        return Made(content, inputs)

    def binary_shapes(self) -> tuple[list[int], list[int], list[int]]:
        shape = self.shape(self.pick(2, 3, 4))
        other = [dim if self.flag() else 1 for dim in shape]
        if self.flag():
            other = other[self.draw.integer(0, len(other) - 1) :]
        return shape, other, list(np.broadcast_shapes(tuple(shape), tuple(other)))


def _out(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    return -(-size // stride) if padding == SAME else -(-(size - (kernel - 1) * dilation) // stride)


def convolution(m: Maker, bits: int = 8) -> Made:
    depthwise = m.flag()
    n, c = m.pick(1, 1, 2), m.draw.integer(1, 6)
    kernel = [m.draw.integer(1, 3), m.draw.integer(1, 3)]
    strides = [m.draw.integer(1, 2), m.draw.integer(1, 2)]
    dilation = [m.draw.integer(1, 2), m.draw.integer(1, 2)] if strides == [1, 1] else [1, 1]
    size = [m.draw.integer(5, 8), m.draw.integer(5, 8)]
    padding = m.pick(SAME, VALID)
    outer = c * m.draw.integer(1, 2) if depthwise else m.draw.integer(1, 8)
    x = m.input([n, *size, c])
    shape = [1, *kernel, outer] if depthwise else [outer, *kernel, c]
    weight, bias = m.weight(shape, 3 if depthwise else 0, x, bits)
    out = m.tensor([n, *(_out(*entry, padding) for entry in zip(size, kernel, strides, dilation)), outer])
    options = {
        "padding": padding, "strideH": strides[0], "strideW": strides[1],
        "dilationHFactor": dilation[0], "dilationWFactor": dilation[1],
        "fusedActivationFunction": m.pick(0, 1, 2, 3),
    }  # fmt: skip
    if depthwise:
        options["depthMultiplier"] = outer // c
    kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    m.file.operator(kind, [x, weight, bias], [out], "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions", **options)
    return m.made(out)


def int4_convolution(m: Maker) -> Made:
    return convolution(m, 4)


def grouped_convolution(m: Maker) -> Made:
    groups, inner, outer = m.draw.integer(2, 3), m.draw.integer(1, 3), m.draw.integer(1, 3)
    x = m.input([1, 5, 6, groups * inner])
    weight, bias = m.weight([groups * outer, 3, 3, inner], 0, x)
    out = m.tensor([1, 5, 6, groups * outer])
    m.file.operator("CONV_2D", [x, weight, bias], [out], "Conv2DOptions", padding=SAME, strideH=1, strideW=1)
    return m.made(out)


def transposed_convolution(m: Maker) -> Made:
    c, outer = m.draw.integer(1, 4), m.draw.integer(1, 4)
    kernel, strides = [m.draw.integer(1, 4), m.draw.integer(1, 4)], [m.draw.integer(1, 3), m.draw.integer(1, 3)]
    size, padding = [m.draw.integer(2, 5), m.draw.integer(2, 5)], m.pick(SAME, VALID)
    full = [n * s if padding == SAME else (n - 1) * s + k for n, s, k in zip(size, strides, kernel)]
    x = m.input([1, *size, c])
    weight, bias = m.weight([outer, *kernel, c], 0, x)
    out = m.tensor([1, *full, outer])
    shape = m.file.constant([1, *full, outer])
    operands = [shape, weight, x, *([bias] if m.flag() else [])]
    m.file.operator(
        "TRANSPOSE_CONV", operands, [out], "TransposeConvOptions", padding=padding, strideH=strides[0], strideW=strides[1]
    )
    return m.made(out)


def convolution_3d(m: Maker) -> Made:
    c, outer = m.draw.integer(1, 3), m.draw.integer(1, 4)
    x = m.input([1, 4, 5, 6, c])
    weight = m.file.tensor([2, 3, 3, c, outer], "float32", data=m.rng.normal(0, 0.5, (2, 3, 3, c, outer)).astype(np.float32))
    bias = m.file.tensor([outer], "float32", data=m.rng.normal(0, 1, outer).astype(np.float32))
    padding, step = m.pick(SAME, VALID), m.draw.integer(1, 2)
    shape = [_out(n, k, step, 1, padding) for n, k in zip((4, 5, 6), (2, 3, 3))]
    out = m.tensor([1, *shape, outer])
    m.file.operator(
        "CONV_3D", [x, weight, bias], [out], "Conv3DOptions", padding=padding, strideD=step, strideH=step, strideW=step
    )
    return m.made(out)


def fully_connected(m: Maker, bits: int = 8) -> Made:
    depth, outer, rank = m.draw.integer(1, 40), m.draw.integer(1, 6), m.draw.integer(2, 4)
    shape = [m.draw.integer(1, 3) for _ in range(rank - 1)] + [depth]
    x = m.input(shape)
    weight, bias = m.weight([outer, depth], 0, x, bits)
    keep = m.flag()
    out = m.tensor([*shape[:-1], outer] if keep else [int(np.prod(shape[:-1])), outer])
    operands = [x, weight, bias if m.flag() else -1]
    m.file.operator(
        "FULLY_CONNECTED", operands, [out], "FullyConnectedOptions", keepNumDims=keep, fusedActivationFunction=m.pick(0, 1, 3)
    )
    return m.made(out)


def int4_fully_connected(m: Maker) -> Made:
    return fully_connected(m, 4)


def batch_matmul(m: Maker) -> Made:
    rows, depth, columns, batch = (m.draw.integer(1, 6) for _ in range(4))
    left, right = m.flag(), m.flag()
    a = m.input([batch, depth, rows] if left else [batch, rows, depth])
    b = m.operand([batch, columns, depth] if right else [batch, depth, columns])
    out = m.tensor([batch, rows, columns])
    m.file.operator("BATCH_MATMUL", [a, b], [out], "BatchMatMulOptions", adjX=left, adjY=right)
    return m.made(out)


def binary(kind: str, options: str | None, **values) -> Callable[[Maker], Made]:
    def make(m: Maker) -> Made:
        shape, other, result = m.binary_shapes()
        a, b = m.input(shape), m.operand(other)
        out = m.tensor(result)
        operands = [a, b] if m.flag() else [b, a]
        extra = dict(values)
        if kind in ("ADD", "SUB", "MUL") and options is not None:
            extra["fusedActivationFunction"] = m.pick(0, 1, 2, 3)
        m.file.operator(kind, operands, [out], options, **extra)
        return m.made(out)

    return make


def extreme(kind: str) -> Callable[[Maker], Made]:
    def make(m: Maker) -> Made:
        shape, other, result = m.binary_shapes()
        q = m.quantization()
        a, b = m.input(shape, *q), m.operand(other, *q)
        out = m.tensor(result, *q)
        m.file.operator(kind, [a, b], [out], "MaximumMinimumOptions")
        return m.made(out)

    return make


def unary(kind: str, options: str | None = None, *, positive: bool = False, fixed: tuple | None = None, **values):
    def make(m: Maker) -> Made:
        shape = m.shape(m.pick(1, 2, 3, 4))
        x = m.input(shape)
        out = m.tensor(shape, *((1 / 32768, 0) if m.dtype == "int16" and fixed else fixed if fixed and not m.real else ()))
        extra = {name: value(m) if callable(value) else value for name, value in values.items()}
        m.file.operator(kind, [x], [out], options, **extra)
        made = m.made(out)
        if positive:
            low = 0 if m.real else m.file.tensors[x].quantization.zeroPoint[0] + (kind != "SQRT")
            info = None if m.real else np.iinfo(m.dtype)
            made.inputs = [
                np.abs(v) + np.float32(0.1) if m.real else np.clip(v, min(low, info.max), None).astype(v.dtype)
                for v in made.inputs
            ]
        return made

    return make


def prelu(m: Maker) -> Made:
    shape = m.shape(4)
    slope_shape = [1, 1, shape[-1]] if m.flag() else shape[1:]
    x = m.input(shape)
    slopes = m.value(slope_shape) if m.dtype != "int16" else m.rng.integers(-128, 128, slope_shape).astype(np.int8)
    slope = m.file.tensor(slope_shape, slopes.dtype.name, *m.quantization(), data=slopes)
    out = m.tensor(shape)
    m.file.operator("PRELU", [x, slope], [out])
    return m.made(out)


def pool(kind: str) -> Callable[[Maker], Made]:
    def make(m: Maker) -> Made:
        size = [m.draw.integer(3, 8), m.draw.integer(3, 8)]
        kernel = [m.draw.integer(1, min(4, n)) for n in size]
        strides, padding, c = [m.draw.integer(1, 3), m.draw.integer(1, 3)], m.pick(SAME, VALID), m.draw.integer(1, 5)
        q = m.quantization()
        x = m.input([1, *size, c], *q)
        out = m.tensor([1, *(_out(n, k, s, 1, padding) for n, k, s in zip(size, kernel, strides)), c], *q)
        m.file.operator(
            kind, [x], [out], "Pool2DOptions", padding=padding, filterHeight=kernel[0], filterWidth=kernel[1],
            strideH=strides[0], strideW=strides[1], fusedActivationFunction=m.pick(0, 1, 3),
        )  # fmt: skip
        return m.made(out)

    return make


def reduction(kind: str, same: bool = False) -> Callable[[Maker], Made]:
    def make(m: Maker) -> Made:
        shape = m.shape(m.pick(2, 3, 4))
        axes = sorted({m.draw.integer(0, len(shape) - 1) for _ in range(m.draw.integer(1, 2))})
        keep, q = m.flag(), m.quantization()
        x = m.input(shape, *q)
        result = [1 if a in axes else d for a, d in enumerate(shape) if keep or a not in axes]
        out = m.tensor(result, *(q if same else ()))
        named = [axis - len(shape) if m.flag() else axis for axis in axes]
        m.file.operator(kind, [x, m.file.constant(named)], [out], "ReducerOptions", keepDims=keep)
        return m.made(out)

    return make


def argument(kind: str) -> Callable[[Maker], Made]:
    def make(m: Maker) -> Made:
        shape = m.shape(m.pick(2, 3, 4))
        axis = m.draw.integer(0, len(shape) - 1)
        x = m.input(shape)
        out = m.file.tensor(shape[:axis] + shape[axis + 1 :], "int32")
        m.file.operator(
            kind, [x, m.file.constant([axis])], [out], "ArgMaxOptions" if kind == "ARG_MAX" else "ArgMinOptions", outputType=2
        )
        return m.made(out)

    return make


def softmax(m: Maker) -> Made:
    shape = m.shape(m.pick(2, 3, 4))
    x = m.input(shape)
    fixed = {"int8": (1 / 256, -128), "int16": (1 / 32768, 0)}.get(m.dtype, ())
    out = m.tensor(shape, *fixed)
    m.file.operator("SOFTMAX", [x], [out], "SoftmaxOptions", beta=m.pick(1.0, 0.5))
    return m.made(out)


def concatenation(m: Maker) -> Made:
    shape = m.shape(m.pick(2, 3, 4))
    axis, q = m.draw.integer(0, len(shape) - 1), m.quantization()
    sizes = [m.draw.integer(1, 4) for _ in range(m.draw.integer(2, 3))]
    parts = [m.operand([*shape[:axis], size, *shape[axis + 1 :]], *q) for size in sizes]
    out = m.tensor([*shape[:axis], sum(sizes), *shape[axis + 1 :]], *q)
    m.file.operator("CONCATENATION", parts, [out], "ConcatenationOptions", axis=axis if m.flag() else axis - len(shape))
    return m.made(out)


def moved(m: Maker, kind: str, shape, result, operands=(), options=None, front: bool = False, **values) -> Made:
    """An operator that keeps scales."""
    q = m.quantization()
    x = m.input(shape, *q)
    several = isinstance(result[0], (list, tuple)) if result else False
    outs = [m.tensor(r, *q) for r in (result if several else [result])]
    constants = [m.file.constant(value) for value in operands]
    m.file.operator(kind, [*constants, x] if front else [x, *constants], outs, options, **values)
    return m.made(*outs)


def reshape(m: Maker) -> Made:
    shape = m.shape(4)
    return moved(m, "RESHAPE", shape, [1, int(np.prod(shape))], [[1, int(np.prod(shape))]], "ReshapeOptions")


def squeeze(m: Maker) -> Made:
    return moved(m, "SQUEEZE", [1, 3, 1, 4], [1, 3, 4], (), "SqueezeOptions", squeezeDims=[2])


def expand_dims(m: Maker) -> Made:
    return moved(m, "EXPAND_DIMS", [1, 3, 4], [1, 3, 1, 4], [[2]], "ExpandDimsOptions")


def transpose(m: Maker) -> Made:
    shape = m.shape(m.pick(2, 3, 4))
    order = [int(axis) for axis in m.rng.permutation(len(shape))]
    return moved(m, "TRANSPOSE", shape, [shape[axis] for axis in order], [order], "TransposeOptions")


def slice_(m: Maker) -> Made:
    shape = m.shape(m.pick(2, 3, 4))
    begin = [m.draw.integer(0, dim - 1) for dim in shape]
    size = [m.draw.integer(1, dim - b) for dim, b in zip(shape, begin)]
    given = [-1 if s == d - b and m.flag() else s for s, d, b in zip(size, shape, begin)]
    return moved(m, "SLICE", shape, size, [begin, given], "SliceOptions")


def strided_slice(m: Maker) -> Made:
    shape = [1, *(m.draw.integer(2, 6) for _ in range(m.draw.integer(1, 3)))]
    begin, end, steps, masks, result = [], [], [], {"beginMask": 0, "endMask": 0, "shrinkAxisMask": 0}, []
    for axis, size in enumerate(shape):
        step = m.pick(1, 2, -1)
        first, last = (m.draw.integer(0, size - 1), size) if step > 0 else (size - 1, 0)
        masks["beginMask"] |= (mask := int(m.flag())) << axis
        masks["endMask"] |= (until := int(m.flag())) << axis
        if axis and m.draw.integer(0, 4) == 0:
            masks["shrinkAxisMask"] |= 1 << axis
            step, last, kept = 1, first + 1, None
        else:
            kept = len(range(size)[slice(None if mask else first, None if until else last, step)])
        if kept == 0:
            masks["endMask"] |= 1 << axis
            kept = len(range(size)[slice(None if mask else first, None, step)])
        if kept is not None:
            result.append(kept)
        begin.append(first), end.append(last), steps.append(step)
    return moved(m, "STRIDED_SLICE", shape, result, [begin, end, steps], "StridedSliceOptions", **masks)


def split(m: Maker) -> Made:
    shape, axis, count = m.shape(4), m.draw.integer(1, 3), m.draw.integer(2, 3)
    part = list(shape)
    shape[axis] *= count
    return moved(m, "SPLIT", shape, [part] * count, [axis], "SplitOptions", True, numSplits=count)


def split_v(m: Maker) -> Made:
    shape, axis = m.shape(4), m.draw.integer(1, 3)
    sizes = [m.draw.integer(1, 3) for _ in range(3)]
    parts = [[*shape[:axis], size, *shape[axis + 1 :]] for size in sizes]
    shape[axis] = sum(sizes)
    return moved(m, "SPLIT_V", shape, parts, [sizes, axis], "SplitVOptions", numSplits=3)


def pack(m: Maker) -> Made:
    shape, count, q = m.shape(3), m.draw.integer(1, 3), m.quantization()
    axis = m.draw.integer(0, 3)
    parts = [m.operand(shape, *q) for _ in range(count)]
    out = m.tensor([*shape[:axis], count, *shape[axis:]], *q)
    m.file.operator("PACK", parts, [out], "PackOptions", axis=axis, valuesCount=count)
    return m.made(out)


def unpack(m: Maker) -> Made:
    shape = m.shape(4)
    axis = m.draw.integer(0, 3)
    return moved(
        m, "UNPACK", shape, [shape[:axis] + shape[axis + 1 :]] * shape[axis], (), "UnpackOptions", num=shape[axis], axis=axis
    )


def gather(m: Maker) -> Made:
    shape = m.shape(3)
    axis = m.draw.integer(1, 2)
    indices = m.rng.integers(0, shape[axis], (2, 2) if m.flag() else (3,))
    return moved(m, "GATHER", shape, [*shape[:axis], *indices.shape, *shape[axis + 1 :]], [indices], "GatherOptions", axis=axis)


def pad(m: Maker) -> Made:
    shape = m.shape(4)
    widths = [[0, 0], *([m.draw.integer(0, 2), m.draw.integer(0, 2)] for _ in range(3))]
    return moved(m, "PAD", shape, [d + a + b for d, (a, b) in zip(shape, widths)], [widths], "PadOptions")


def pad_value(m: Maker) -> Made:
    shape, q = m.shape(4), m.quantization()
    widths = [[0, 0], *([m.draw.integer(0, 2), m.draw.integer(0, 2)] for _ in range(3))]
    x = m.input(shape, *q)
    value = m.file.tensor([], m.dtype, *q, data=m.value(()))
    out = m.tensor([d + a + b for d, (a, b) in zip(shape, widths)], *q)
    m.file.operator("PADV2", [x, m.file.constant(widths), value], [out], "PadV2Options")
    return m.made(out)


def mirror_pad(m: Maker) -> Made:
    shape, mode = [1, m.draw.integer(2, 5), m.draw.integer(2, 5), 3], m.pick(0, 1)
    widths = [[0, 0], [m.draw.integer(0, 1), 1], [1, m.draw.integer(0, 1)], [0, 0]]
    return moved(
        m, "MIRROR_PAD", shape, [d + a + b for d, (a, b) in zip(shape, widths)], [widths], "MirrorPadOptions", mode=mode
    )


def depth_to_space(m: Maker) -> Made:
    h, w, c, size = m.draw.integer(1, 4), m.draw.integer(1, 4), m.draw.integer(1, 3), m.pick(2, 3)
    return moved(
        m, "DEPTH_TO_SPACE", [1, h, w, c * size**2], [1, h * size, w * size, c], (), "DepthToSpaceOptions", blockSize=size
    )


def space_to_depth(m: Maker) -> Made:
    h, w, c, size = m.draw.integer(1, 4), m.draw.integer(1, 4), m.draw.integer(1, 3), m.pick(2, 3)
    return moved(
        m, "SPACE_TO_DEPTH", [1, h * size, w * size, c], [1, h, w, c * size**2], (), "SpaceToDepthOptions", blockSize=size
    )


def space_to_batch(m: Maker) -> Made:
    size, c = m.pick(1, 2), m.draw.integer(1, 3)
    operands = [[size, 2], [[0, 0], [0, 1]]]
    return moved(m, "SPACE_TO_BATCH_ND", [1, 4, 5, c], [2 * size, 4 // size, 3, c], operands, "SpaceToBatchNDOptions")


def batch_to_space(m: Maker) -> Made:
    h, w, c = m.draw.integer(1, 4), m.draw.integer(1, 4), m.draw.integer(1, 3)
    operands = [[2, 2], [[0, 1], [1, 0]]]
    return moved(m, "BATCH_TO_SPACE_ND", [4, h, w, c], [1, 2 * h - 1, 2 * w - 1, c], operands, "BatchToSpaceNDOptions")


def resize(kind: str) -> Callable[[Maker], Made]:
    def make(m: Maker) -> Made:
        h, w, c = m.draw.integer(1, 5), m.draw.integer(1, 5), m.draw.integer(1, 3)
        size = [m.draw.integer(1, 9), m.draw.integer(1, 9)]
        mode = m.draw.integer(0, 2)
        options = "ResizeBilinearOptions" if kind == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
        return moved(m, kind, [1, h, w, c], [1, *size, c], [size], options, alignCorners=mode == 1, halfPixelCenters=mode == 2)

    return make


def requantization(m: Maker) -> Made:
    shape = m.shape(3)
    x = m.input(shape)
    out = m.file.tensor(shape, m.pick("int8", "int16"), 0.03, 0)
    m.file.operator("QUANTIZE", [x], [out])
    return m.made(out)


# By kind: what makes a file of it, and whether its bytes are LiteRT's (else within one step).
MOVES: dict[str, Callable[[Maker], Made]] = {
    "RESHAPE": reshape, "SQUEEZE": squeeze, "EXPAND_DIMS": expand_dims, "TRANSPOSE": transpose, "SLICE": slice_,
    "STRIDED_SLICE": strided_slice, "SPLIT": split, "SPLIT_V": split_v, "PACK": pack, "UNPACK": unpack, "GATHER": gather,
    "PAD": pad, "PADV2": pad_value, "MIRROR_PAD": mirror_pad, "DEPTH_TO_SPACE": depth_to_space,
    "SPACE_TO_DEPTH": space_to_depth, "SPACE_TO_BATCH_ND": space_to_batch, "BATCH_TO_SPACE_ND": batch_to_space,
    "RESIZE_NEAREST_NEIGHBOR": resize("RESIZE_NEAREST_NEIGHBOR"),
    "CONCATENATION": concatenation, "REDUCE_MAX": reduction("REDUCE_MAX", True), "REDUCE_MIN": reduction("REDUCE_MIN", True),
    "ARG_MAX": argument("ARG_MAX"), "ARG_MIN": argument("ARG_MIN"),
    "MAXIMUM": extreme("MAXIMUM"), "MINIMUM": extreme("MINIMUM"),
}  # fmt: skip
LAYERS: dict[str, Callable[[Maker], Made]] = {
    "CONV_2D": convolution, "CONV_2D grouped": grouped_convolution, "TRANSPOSE_CONV": transposed_convolution,
    "FULLY_CONNECTED": fully_connected, "BATCH_MATMUL": batch_matmul, "AVERAGE_POOL_2D": pool("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pool("MAX_POOL_2D"), "MEAN": reduction("MEAN"), "SOFTMAX": softmax,
    "ADD": binary("ADD", "AddOptions", potScaleInt16=False), "SUB": binary("SUB", "SubOptions", potScaleInt16=False),
    "MUL": binary("MUL", "MulOptions"), "SQUARED_DIFFERENCE": binary("SQUARED_DIFFERENCE", None),
    "RESIZE_BILINEAR": resize("RESIZE_BILINEAR"), "PRELU": prelu,
    **{kind: unary(kind) for kind in ("RELU", "RELU6", "RELU_N1_TO_1", "ABS", "EXP", "HARD_SWISH")},
    "LOG": unary("LOG", positive=True), "SQRT": unary("SQRT", positive=True), "RSQRT": unary("RSQRT", positive=True),
    "LEAKY_RELU": unary("LEAKY_RELU", "LeakyReluOptions", alpha=lambda m: m.pick(0.1, 0.25, -0.5)),
    "GELU": unary("GELU", "GeluOptions", approximate=lambda m: m.flag()),
    "LOGISTIC": unary("LOGISTIC", fixed=(1 / 256, -128)), "TANH": unary("TANH", fixed=(1 / 128, 0)),
}  # fmt: skip
INT8 = {
    **MOVES, **LAYERS, "QUANTIZE": requantization,
    "CONV_2D int4": int4_convolution, "FULLY_CONNECTED int4": int4_fully_connected,
}  # fmt: skip
# Computed in float between dequantization and quantization; and those that LiteRT has no reference kernel for, or one that is
# wrong (it reads the int8 of a SUM as uint8): single steps may differ.
NEAR = {
    "SUM": reduction("SUM"),
    "ELU": unary("ELU"),
    "DIV": binary("DIV", "DivOptions"),
    "LOG_SOFTMAX": unary("LOG_SOFTMAX", "LogSoftmaxOptions", fixed=(16 / 256, 127)),
    "L2_NORMALIZATION": unary("L2_NORMALIZATION", "L2NormOptions", fixed=(1 / 128, 0)),
}
FLOAT = {
    **MOVES, **LAYERS, **NEAR, "CONV_3D": convolution_3d, "SQUARE": unary("SQUARE", "SquareOptions"),
    "NEG": unary("NEG"), "SIN": unary("SIN"), "COS": unary("COS"), "FLOOR": unary("FLOOR"), "CEIL": unary("CEIL"),
}  # fmt: skip
# Without a reference kernel that can be compared with.
NO_REFERENCE = ("SUM", "ELU")
# LiteRT has no kernels of int16 for the rest, or (four-bit weights of convolutions) one that is wrong.
_NO_INT16 = (
    "DEPTH_TO_SPACE",
    "SPACE_TO_DEPTH",
    "ARG_MAX",
    "ARG_MIN",
    "SQUARED_DIFFERENCE",
    "RELU_N1_TO_1",
    "HARD_SWISH",
    "CONV_2D int4",
)
_NEAR_16 = ("BATCH_MATMUL", "ABS", "SQRT", "LOGISTIC", "TANH")
INT16 = {kind: make for kind, make in INT8.items() if kind not in (*_NO_INT16, *_NEAR_16)}
INT16_NEAR = {kind: INT8[kind] for kind in _NEAR_16}
