"""How each TFLite operator on int8 tensors becomes one of ours, with the multipliers that TensorFlow Lite computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..passes import Affine
from ..passes._tvm import relax
from ..passes.integer import ops
from ..passes.integer.bounds import fits_int32
from ..passes.integer.requantize import quantize_multiplier, quantize_multipliers
from ..passes.integer.softmax import OUTPUT_SCALE, OUTPUT_ZERO_POINT
from .tflite_schema import Graph, Node, TensorInfo

# Values of the schema's enumerations.
_SAME, _VALID = 0, 1
_LIMITS = {0: (-np.inf, np.inf), 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


class Importer:
    """The module being made.

    Attributes:
        graph: The file.
        rounding: "double" or "single".
        dense_rounding: That of fully connected layers.
        builder: Receives the operators.
        values: The expression of every tensor so far, by index.
        variables: The parameters.
        params: Their values, by name.
        scales: How each integer tensor is to be read, by the name of its variable.
    """

    def __init__(self, graph: Graph, rounding: str, dense_rounding: str) -> None:
        self.graph = graph
        self.rounding = rounding
        self.dense_rounding = dense_rounding
        self.builder = relax.BlockBuilder()
        self.values: dict[int, relax.Expr] = {}
        self.variables: list[relax.Var] = []
        self.params: dict[str, np.ndarray] = {}
        self.scales: dict[str, Affine] = {}
        self._counts: dict[str, int] = {}

    def tensor(self, index: int) -> TensorInfo:
        """A tensor's description."""
        return self.graph.tensors[index]

    def affine(self, index: int) -> Affine:
        """A tensor's scale and zero point.

        Raises:
            ValueError: It is not int8, or has not exactly one scale.
        """
        info = self.tensor(index)
        if info.dtype != "int8" or len(info.scales) != 1 or len(info.zero_points) != 1:
            raise ValueError(f"tensor {info.name} is {info.dtype}, not int8 with one scale")
        return Affine(float(info.scales[0]), int(info.zero_points[0]))

    def value(self, index: int) -> relax.Expr:
        """A tensor's expression; a constant becomes a parameter."""
        if index not in self.values:
            data = self.constant(index)
            self.values[index] = self.param(self.layer("constant"), data)
        return self.values[index]

    def constant(self, index: int) -> np.ndarray:
        """A constant tensor's value.

        Raises:
            ValueError: The tensor is not constant.
        """
        data = self.tensor(index).data
        if data is None:
            raise ValueError(f"tensor {self.tensor(index).name} is not constant")
        return data

    def layer(self, stem: str) -> str:
        """A name for the next operator of a kind: conv_0, conv_1, ..."""
        count = self._counts.get(stem, 0)
        self._counts[stem] = count + 1
        return f"{stem}_{count}"

    def param(self, name: str, value: np.ndarray) -> relax.Var:
        """A new parameter."""
        var = relax.Var(name, relax.TensorType(value.shape, value.dtype.name))
        self.variables.append(var)
        self.params[name] = value
        return var

    def result(self, node: Node, expr: relax.Expr, name: str) -> None:
        """Bind an operator's result."""
        index = node.outputs[0]
        var = self.builder.emit(expr, name)
        self.values[index] = var
        self.scales[var.name] = self.affine(index)

    def factor(self, factor: float) -> dict[str, int]:
        """A requantization factor as attributes."""
        multiplier, shift = quantize_multiplier(factor, self.rounding)
        return {"multiplier": multiplier, "shift": shift}


Rule = Callable[[Importer, Node], None]
RULES: dict[str, Rule] = {}


def _rule(*kinds: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for kind in kinds:
            RULES[kind] = rule
        return rule

    return register


def _limits(affine: Affine, activation: int) -> dict[str, int]:
    if activation not in _LIMITS:
        raise ValueError(f"the fused activation {activation} is not supported")
    qmin, qmax = affine.clip_limits(*_LIMITS[activation])
    return {"qmin": qmin, "qmax": qmax}


def _padding(scheme: int, sizes: Any, kernel: Any, strides: Any, dilation: Any = (1, 1)) -> list[int]:
    """Top, left, bottom, right; the odd row and column of SAME go to the end."""
    if scheme == _VALID:
        return [0, 0, 0, 0]
    before, after = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilation):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return [*before, *after]


def _layer_arguments(
    load: Importer, node: Node, name: str, matrix: np.ndarray, stored: np.ndarray, axis: int
) -> tuple[list[relax.Var], dict[str, Any]]:
    """Parameters and common attributes of a layer; `matrix` is its weight as (O, K)."""
    x, out = load.affine(node.inputs[0]), load.affine(node.outputs[0])
    info = load.tensor(node.inputs[1])
    channels = len(matrix)
    if info.dtype != "int8" or np.any(info.zero_points != 0) or len(info.scales) not in (1, channels):
        raise ValueError("its weights are not int8 with the zero point 0")
    if len(info.scales) > 1 and info.axis != axis:
        raise ValueError("its weights are not quantized along the output channels")
    has_bias = len(node.inputs) > 2 and node.inputs[2] >= 0
    bias = load.constant(node.inputs[2]).reshape(-1) if has_bias else np.zeros(channels, np.int32)
    if bias.dtype != np.int32 or not fits_int32(matrix, bias, x.zero_point):
        raise ValueError("its sums of products could leave 32 bits")
    factors = np.broadcast_to(x.scale * info.scales.astype(np.float64) / out.scale, (channels,))
    rounding = load.dense_rounding if node.kind == "FULLY_CONNECTED" else load.rounding
    # The finest multipliers under either rounding, so that a real product rounded once is met.
    multiplier, shift = quantize_multipliers(list(factors), "double" if rounding != load.rounding else rounding)
    arrays = {"weight": stored, "bias": bias, "multiplier": multiplier, "shift": shift}
    common: dict[str, Any] = {
        "input_zero_point": x.zero_point,
        "output_zero_point": out.zero_point,
        "rounding": rounding,
        "max_shift": int(shift.max()),
        **_limits(out, node.options.FusedActivationFunction()),
    }
    return [load.param(f"{name}.{key}", np.array(value, order="C")) for key, value in arrays.items()], common


def _geometry(load: Importer, node: Node, kernel: tuple[int, int]) -> dict[str, Any]:
    options = node.options
    strides = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    sizes = load.tensor(node.inputs[0]).shape[1:3]
    padding = _padding(options.Padding(), sizes, kernel, strides, dilation)
    return {"strides": strides, "padding": padding, "dilation": dilation}


@_rule("CONV_2D")
def _conv(load: Importer, node: Node) -> None:
    weight, name = load.constant(node.inputs[1]), load.layer("conv")
    params, common = _layer_arguments(load, node, name, weight.reshape(len(weight), -1), weight, 0)
    groups = load.tensor(node.inputs[0]).shape[3] // weight.shape[3]
    geometry = _geometry(load, node, weight.shape[1:3])
    load.result(node, ops.qconv2d(load.value(node.inputs[0]), *params, **{**geometry, **common}, groups=groups), name)


@_rule("DEPTHWISE_CONV_2D")
def _depthwise(load: Importer, node: Node) -> None:
    weight, name = load.constant(node.inputs[1]), load.layer("depthwise")
    params, common = _layer_arguments(load, node, name, weight.reshape(-1, weight.shape[3]).T, weight, 3)
    geometry = _geometry(load, node, weight.shape[1:3])
    load.result(node, ops.qdepthwise(load.value(node.inputs[0]), *params, **{**geometry, **common}), name)


@_rule("FULLY_CONNECTED")
def _dense(load: Importer, node: Node) -> None:
    weight, name = load.constant(node.inputs[1]), load.layer("dense")
    params, common = _layer_arguments(load, node, name, weight, weight, 0)
    x, shape = load.value(node.inputs[0]), load.tensor(node.inputs[0]).shape
    out_shape = load.tensor(node.outputs[0]).shape
    if shape[:-1] != out_shape[:-1] or shape[-1] != weight.shape[1]:
        x = load.builder.emit(relax.op.reshape(x, (int(np.prod(shape)) // weight.shape[1], weight.shape[1])))
    dense = ops.qdense(x, *params, **common)
    if out_shape[:-1] != tuple(int(d) for d in x.ty.shape)[:-1]:
        dense = relax.op.reshape(load.builder.emit(dense), out_shape)
    load.result(node, dense, name)


@_rule("ADD", "SUB", "MUL")
def _sum(load: Importer, node: Node) -> None:
    a, b = (load.affine(index) for index in node.inputs)
    out = load.affine(node.outputs[0])
    common: dict[str, Any] = {
        "input1_zero_point": a.zero_point,
        "input2_zero_point": b.zero_point,
        "output_zero_point": out.zero_point,
        "rounding": load.rounding,
        **_limits(out, node.options.FusedActivationFunction()),
    }
    operands = [load.value(index) for index in node.inputs]
    name = load.layer(node.kind.lower())
    if node.kind == "MUL":
        load.result(node, ops.qmul(*operands, **common, **load.factor(a.scale * b.scale / out.scale)), name)
        return
    factors = ops.add_parameters(a.scale, b.scale, out.scale, load.rounding)
    make = ops.qadd if node.kind == "ADD" else ops.qsub
    load.result(node, make(*operands, **{**common, **factors}), name)


@_rule("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(load: Importer, node: Node) -> None:
    options = node.options
    kernel, strides = (options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW())
    padding = _padding(options.Padding(), load.tensor(node.inputs[0]).shape[1:3], kernel, strides)
    average = node.kind == "AVERAGE_POOL_2D"
    limits = _limits(load.affine(node.outputs[0]), options.FusedActivationFunction())
    make = ops.qavgpool if average else ops.qmaxpool
    pooled = make(load.value(node.inputs[0]), pool_size=kernel, strides=strides, padding=padding, **limits)
    load.result(node, pooled, load.layer("avgpool" if average else "maxpool"))


@_rule("MEAN")
def _mean(load: Importer, node: Node) -> None:
    x, out = load.affine(node.inputs[0]), load.affine(node.outputs[0])
    shape = load.tensor(node.inputs[0]).shape
    axes = sorted({int(axis) % len(shape) for axis in load.constant(node.inputs[1]).reshape(-1)})
    count = int(np.prod([shape[axis] for axis in axes]))
    multiplier, shift = quantize_multiplier(x.scale / out.scale)
    multiplier, shift = ops.mean_multiplier(multiplier, shift, count)
    mean = ops.qmean(
        load.value(node.inputs[0]),
        axes=axes,
        keepdims=bool(node.options.KeepDims()),
        input_zero_point=x.zero_point,
        output_zero_point=out.zero_point,
        multiplier=multiplier,
        shift=shift,
        rounding=load.rounding,
    )
    load.result(node, mean, load.layer("mean"))


@_rule("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(load: Importer, node: Node) -> None:
    shape = load.tensor(node.outputs[0]).shape
    load.result(node, relax.op.reshape(load.value(node.inputs[0]), shape), load.layer("reshape"))


@_rule("TRANSPOSE")
def _transpose(load: Importer, node: Node) -> None:
    axes = [int(axis) for axis in load.constant(node.inputs[1]).reshape(-1)]
    load.result(node, relax.op.permute_dims(load.value(node.inputs[0]), axes), load.layer("transpose"))


@_rule("PAD")
def _pad(load: Importer, node: Node) -> None:
    width = [int(size) for size in load.constant(node.inputs[1]).reshape(-1)]
    zero = load.affine(node.inputs[0]).zero_point
    load.result(node, ops.qpad(load.value(node.inputs[0]), pad_width=width, value=zero), load.layer("pad"))


@_rule("CONCATENATION")
def _concat(load: Importer, node: Node) -> None:
    out = load.affine(node.outputs[0])
    inputs = [load.affine(index) for index in node.inputs]
    pairs = [ops.IDENTITY if x == out else quantize_multiplier(x.scale / out.scale, load.rounding) for x in inputs]
    joined = ops.qconcat(
        [load.value(index) for index in node.inputs],
        axis=node.options.Axis() % len(load.tensor(node.outputs[0]).shape),
        input_zero_points=[x.zero_point for x in inputs],
        multipliers=[multiplier for multiplier, _ in pairs],
        shifts=[shift for _, shift in pairs],
        output_zero_point=out.zero_point,
        rounding=load.rounding,
        **_limits(out, node.options.FusedActivationFunction()),
    )
    load.result(node, joined, load.layer("concat"))


@_rule("QUANTIZE", "RELU", "RELU6")
def _requantize(load: Importer, node: Node) -> None:
    x, out = load.affine(node.inputs[0]), load.affine(node.outputs[0])
    changed = ops.qrequantize(
        load.value(node.inputs[0]),
        input_zero_point=x.zero_point,
        output_zero_point=out.zero_point,
        rounding=load.rounding,
        **load.factor(x.scale / out.scale),
        **_limits(out, {"QUANTIZE": 0, "RELU": 1, "RELU6": 3}[node.kind]),
    )
    load.result(node, changed, load.layer("requantize"))


@_rule("SOFTMAX")
def _softmax(load: Importer, node: Node) -> None:
    if load.affine(node.outputs[0]) != Affine(OUTPUT_SCALE, OUTPUT_ZERO_POINT):
        raise ValueError("its result has not the scale 1/256 and the zero point -128")
    name = load.layer("softmax")
    scale, beta = load.affine(node.inputs[0]).scale, node.options.Beta()
    table = load.param(f"{name}.exponentials", ops.exponentials(scale, beta))
    load.result(node, ops.qsoftmax(load.value(node.inputs[0]), table), name)
