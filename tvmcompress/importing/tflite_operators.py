"""The operators of fully integer TFLite models, as our integer operators.

Multipliers, shifts, clips of activations and padding are those that TFLite's interpreter derives when it prepares a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from ..errors import UserError
from ..passes._tvm import relax
from ..passes.integer import ops
from ..passes.integer.requantize import quantize_multiplier, quantize_multipliers
from ..passes.integer.softmax import OUTPUT_SCALE, OUTPUT_ZERO_POINT


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor of the file.

    Attributes:
        index: In the subgraph.
        name: Its name.
        shape: Its shape.
        dtype: Its dtype.
        scales: float32, one or one per channel; empty for a float tensor.
        zero_points: As many.
        data: Its value when it is a constant.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray
    zero_points: np.ndarray
    data: np.ndarray | None

    @property
    def scale(self) -> float:
        """Its only scale, as a double."""
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """Its only zero point."""
        return int(self.zero_points[0])


@dataclass(frozen=True)
class TfliteOperator:
    """One operator of the file, with its options as the format describes them."""

    kind: str
    index: int
    inputs: tuple[TfliteTensor | None, ...]
    output: TfliteTensor
    options: Any


class Importer(Protocol):
    """What a converter asks of the import that it is part of.

    Attributes:
        source: Name of the file.
        dense_rounding: How fully connected layers round.
    """

    source: str
    dense_rounding: str

    def value(self, tensor: TfliteTensor) -> relax.Expr:
        """A tensor computed before, or an input."""
        ...

    def param(self, name: str, value: np.ndarray) -> relax.Var:
        """A parameter of its own."""
        ...


def identifier(name: str) -> str:
    """A name that parameters and variables may have."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


def _clip(activation: int, output: TfliteTensor) -> dict[str, Any]:
    """The limits of a fused activation in the output's integers (`CalculateActivationRangeQuantized`)."""

    def quantized(real: float) -> int:
        # std::round: halves away from zero.
        value = np.float32(real) / np.float32(output.scale)
        return output.zero_point + int(np.floor(np.abs(value) + 0.5) * np.sign(value))

    low, high = {0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}[activation]
    return {
        "qmin": -128 if low is None else max(-128, quantized(low)),
        "qmax": 127 if high is None else min(127, quantized(high)),
    }


def _padding(
    same: bool, size: tuple[int, ...], out: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...],
    dilation: tuple[int, ...] = (1, 1),
) -> tuple[int, int, int, int]:  # fmt: skip
    """Top, left, bottom, right."""
    if not same:
        return 0, 0, 0, 0
    totals = [
        max((o - 1) * s + (k - 1) * d + 1 - n, 0) for n, o, k, s, d in zip(size, out, kernel, strides, dilation)
    ]
    return totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2


def _weight(operator: TfliteOperator, source: str) -> TfliteTensor:
    weight = operator.inputs[1]
    if weight is None or weight.data is None or weight.dtype != "int8" or (weight.zero_points != 0).any():
        raise UserError(
            f"{source}: the weight of {operator.kind} number {operator.index} is not constant, symmetric int8; "
            "convert the model with full integer quantization"
        )
    return weight


def _bias(operator: TfliteOperator, channels: int) -> np.ndarray:
    bias = operator.inputs[2] if len(operator.inputs) > 2 else None
    return np.zeros(channels, np.int32) if bias is None or bias.data is None else bias.data.astype(np.int32)


def _convolution(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out, options = operator.inputs[0], operator.output, operator.options
    assert x is not None
    weight = _weight(operator, importer.source)
    depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    assert weight.data is not None
    channels = weight.shape[3] if depthwise else weight.shape[0]
    scales = np.broadcast_to(weight.scales.astype(np.float64), (channels,))
    multiplier, shift = quantize_multipliers([x.scale * float(s) / out.scale for s in scales])
    strides = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    name = identifier(out.name)
    arguments = [
        importer.value(x),
        importer.param(f"{name}.weight", weight.data),
        importer.param(f"{name}.bias", _bias(operator, channels)),
        importer.param(f"{name}.multiplier", multiplier),
        importer.param(f"{name}.shift", shift),
    ]
    attrs: dict[str, Any] = {
        "strides": strides,
        "dilation": dilation,
        "padding": _padding(options.Padding() == 0, x.shape[1:3], out.shape[1:3], weight.shape[1:3], strides, dilation),
        "input_zero_point": x.zero_point,
        "output_zero_point": out.zero_point,
        "max_shift": int(shift.max(initial=0)),
        **_clip(options.FusedActivationFunction(), out),
    }
    if depthwise:
        return ops.qdepthwise(*arguments, **attrs)
    return ops.qconv2d(*arguments, groups=x.shape[3] // weight.shape[3], **attrs)


def _fully_connected(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out, options = operator.inputs[0], operator.output, operator.options
    assert x is not None
    weight = _weight(operator, importer.source)
    assert weight.data is not None
    outputs, depth = weight.shape
    if len(weight.scales) == 1:
        # One scale: TFLite multiplies in float32 here.
        factors = [float(np.float32(x.scale) * np.float32(weight.scale)) / out.scale] * outputs
    else:
        factors = [x.scale * float(s) / out.scale for s in weight.scales]
    multiplier, shift = quantize_multipliers(factors)
    name = identifier(out.name)
    value = importer.value(x)
    flat = value if len(x.shape) == 2 and x.shape[1] == depth else relax.op.reshape(value, (-1, depth))
    call = ops.qdense(
        flat,
        importer.param(f"{name}.weight", weight.data),
        importer.param(f"{name}.bias", _bias(operator, outputs)),
        importer.param(f"{name}.multiplier", multiplier),
        importer.param(f"{name}.shift", shift),
        input_zero_point=x.zero_point,
        output_zero_point=out.zero_point,
        max_shift=int(shift.max(initial=0)),
        rounding=importer.dense_rounding,
        **_clip(options.FusedActivationFunction(), out),
    )
    return call


def _add(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    a, b, out = operator.inputs[0], operator.inputs[1], operator.output
    assert a is not None
    assert b is not None
    activation = operator.options.FusedActivationFunction() if operator.options is not None else 0
    return ops.qadd(
        importer.value(a),
        importer.value(b),
        input1_zero_point=a.zero_point,
        input2_zero_point=b.zero_point,
        output_zero_point=out.zero_point,
        **cast(dict[str, Any], ops.add_parameters(a.scale, b.scale, out.scale)),
        **_clip(activation, out),
    )


def _mul(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    a, b, out = operator.inputs[0], operator.inputs[1], operator.output
    assert a is not None
    assert b is not None
    multiplier, shift = quantize_multiplier(a.scale * b.scale / out.scale)
    activation = operator.options.FusedActivationFunction() if operator.options is not None else 0
    return ops.qmul(
        importer.value(a),
        importer.value(b),
        input1_zero_point=a.zero_point,
        input2_zero_point=b.zero_point,
        output_zero_point=out.zero_point,
        multiplier=multiplier,
        shift=shift,
        **_clip(activation, out),
    )


def _pool(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out, options = operator.inputs[0], operator.output, operator.options
    assert x is not None
    if (x.scale, x.zero_point) != (out.scale, out.zero_point):
        raise UserError(f"{importer.source}: {operator.kind} number {operator.index} changes the scale, which no pool does")
    kernel = (options.FilterHeight(), options.FilterWidth())
    strides = (options.StrideH(), options.StrideW())
    pool = ops.qavgpool if operator.kind == "AVERAGE_POOL_2D" else ops.qmaxpool
    return pool(
        importer.value(x),
        pool_size=kernel,
        strides=strides,
        padding=_padding(options.Padding() == 0, x.shape[1:3], out.shape[1:3], kernel, strides),
        **_clip(options.FusedActivationFunction(), out),
    )


def _reshape(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    assert operator.inputs[0] is not None
    return relax.op.reshape(importer.value(operator.inputs[0]), operator.output.shape)


def _softmax(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out = operator.inputs[0], operator.output
    assert x is not None
    if (out.scale, out.zero_point) != (OUTPUT_SCALE, OUTPUT_ZERO_POINT):
        raise UserError(f"{importer.source}: SOFTMAX gives scale {out.scale}, not 1/256")
    table = ops.exponentials(x.scale, operator.options.Beta())
    return ops.qsoftmax(importer.value(x), importer.param(f"{identifier(out.name)}.exponentials", table))


def _concatenation(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    out = operator.output
    tensors = [t for t in operator.inputs if t is not None]
    pairs = [
        ops.IDENTITY if (t.scale, t.zero_point) == (out.scale, out.zero_point) else quantize_multiplier(t.scale / out.scale)
        for t in tensors
    ]
    axis = operator.options.Axis()
    return ops.qconcat(
        [importer.value(t) for t in tensors],
        axis=axis if axis >= 0 else axis + len(out.shape),
        input_zero_points=[t.zero_point for t in tensors],
        multipliers=[q for q, _ in pairs],
        shifts=[s for _, s in pairs],
        output_zero_point=out.zero_point,
    )


def _pad(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, widths = operator.inputs[0], operator.inputs[1]
    assert x is not None
    if widths is None or widths.data is None:
        raise UserError(f"{importer.source}: the widths of PAD number {operator.index} are not constant")
    return ops.qpad(importer.value(x), pad_width=[int(v) for v in widths.data.ravel()], value=x.zero_point)


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "SOFTMAX": "SoftmaxOptions",
    "CONCATENATION": "ConcatenationOptions",
}
CONVERTERS: dict[str, Callable[[Importer, TfliteOperator], relax.Expr]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _add,
    "MUL": _mul,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "CONCATENATION": _concatenation,
    "PAD": _pad,
}
