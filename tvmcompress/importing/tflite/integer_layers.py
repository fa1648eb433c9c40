"""Quantized TFLite layers as our integer operators: convolutions, fully connected layers, matrix products.

Multipliers, shifts, clips of activations and padding are those that TFLite's interpreter derives when it prepares a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...passes._tvm import relax
from ...passes.graph.module_params import static_shape
from ...passes.integer import ops
from ...passes.integer.requantize import quantize_multipliers, reduce_multiplier
from ...passes.lowering.bounds import accumulator_bounds
from ...passes.lowering.conv2d_form import conv2d_form
from ...passes.numbers.int4_weights import pack_int4
from .file import TfliteOperator, TfliteTensor
from .geometry import clip, one_factor, padding
from .importer import Importer, identifier, integer
from .rounding import exact_multipliers


@dataclass(frozen=True)
class _Layer:
    """A layer with constant weights.

    Attributes:
        x: Its input.
        out: Its result.
        weight: Its weights, as the file has them.
        integers: Their values, the output channels on `axis`.
        axis: The axis of output channels.
        bias: int64 (O,).
        scales: Of the weights, double precision (O,).
    """

    x: TfliteTensor
    out: TfliteTensor
    weight: TfliteTensor
    integers: np.ndarray
    axis: int
    bias: np.ndarray
    scales: np.ndarray

    @property
    def channels(self) -> int:
        """The number of output channels."""
        return self.integers.shape[self.axis]

    @property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest sum of every channel."""
        rows = np.moveaxis(self.integers, self.axis, 0).reshape(self.channels, -1)
        return accumulator_bounds(rows, self.bias, self.x.zero_point, *self.x.limits)


def _layer(importer: Importer, operator: TfliteOperator, axis: int, places: tuple[int, int, int] = (0, 1, 2)) -> _Layer:
    """The layer of an operator.

    Args:
        importer: The import.
        operator: The operator.
        axis: Of the weight's output channels.
        places: Of input, weight and bias among the operands.
    """
    x, weight = (operator.operand(place) for place in places[:2])
    bias = operator.inputs[places[2]] if len(operator.inputs) > places[2] else None
    if weight.data is None:
        raise importer.refuse(operator, "its weights are not constant")
    if weight.dtype != "int8" or not weight.is_quantized:
        raise importer.refuse(operator, f"its weights are {weight.dtype}, not int8")
    if (weight.zero_points != 0).any():
        raise importer.refuse(operator, "the zero point of its weights is not 0")
    channels = weight.shape[axis]
    if weight.scales.size not in (1, channels) or (weight.scales.size > 1 and weight.axis != axis):
        raise importer.refuse(operator, "the scales of its weights do not run along the output channels")
    offsets = np.zeros(channels, np.int64)
    if bias is not None:
        if bias.data is None:
            raise importer.refuse(operator, "its bias is not constant")
        offsets = bias.data.astype(np.int64).reshape(-1)
    if np.abs(offsets).max(initial=0) >= 1 << 31:
        raise importer.refuse(operator, "its bias needs more than 32 bits")
    scales = np.broadcast_to(weight.scales.astype(np.float64), (channels,))
    return _Layer(x, operator.output, weight, weight.data, axis, offsets, scales)


def _weight(importer: Importer, layer: _Layer, value: np.ndarray, axis: int) -> relax.Expr:
    """The weight as an operand: a parameter; four bits are stored as four bits."""
    stem = layer.weight.name
    if layer.weight.bits != 4:
        return importer.param(stem, value)
    factors = importer.param(f"{stem}.multipliers", np.ones((value.shape[axis], 1), np.int8))
    packed = importer.param(stem, pack_int4(value))
    unpacked = ops.unpacked(packed, factors, shape=value.shape, output_axis=axis, group_size=0)
    return importer.emit(unpacked, f"{identifier(stem)}.int8")


def _arrays(importer: Importer, layer: _Layer, multiplier: np.ndarray, shift: np.ndarray, copies: int = 1) -> list[relax.Expr]:
    """Bias, multiplier and shift as parameters."""
    stem = layer.out.name
    values = {"bias": layer.bias.astype(np.int32), "multiplier": multiplier, "shift": shift}
    return [importer.param(f"{stem}.{name}", value.repeat(copies)) for name, value in values.items()]


def _requantization(importer: Importer, operator: TfliteOperator, layer: _Layer) -> dict[str, Any]:
    """The attributes that all layers share, but for the rounding and its multipliers."""
    smallest, largest = layer.sums
    fits = bool(smallest.min(initial=0) >= -(2**31) and largest.max(initial=0) < 2**31)
    wide = layer.x.dtype == "int16" or not fits
    return {
        "input_zero_point": layer.x.zero_point,
        "output_zero_point": layer.out.zero_point,
        "out_dtype": layer.out.dtype,
        **({"accumulator": "int32" if fits else "int64"} if wide else {}),
        **clip(importer, operator),
    }


def _factors(operator: TfliteOperator, layer: _Layer, bias: TfliteTensor | None) -> tuple[np.ndarray, np.ndarray, str]:
    """(multiplier, shift, rounding) of a convolution; sums of int16 are multiplied in 64 bits."""
    multiplier, shift = quantize_multipliers([layer.x.scale * s / layer.out.scale for s in layer.scales])
    if layer.x.dtype != "int16" or (bias is not None and bias.dtype == "int32"):
        return multiplier, shift, "double"
    reduced = [reduce_multiplier(int(m), int(s))[0] for m, s in zip(multiplier, shift)]
    return np.array(reduced, np.int32), shift, "reduced"


@integer("CONV_2D", "DEPTHWISE_CONV_2D")
def _convolution(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    axis = 3 if depthwise else 0
    layer = _layer(importer, operator, axis)
    multiplier, shift, rounding = _factors(operator, layer, operator.inputs[2] if len(operator.inputs) > 2 else None)
    options = operator.options
    strides = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    x, out, weight = layer.x, layer.out, layer.weight
    before, after = padding(operator, x.shape[1:3], out.shape[1:3], weight.shape[1:3], strides, dilation)
    arguments = [
        importer.value(x),
        _weight(importer, layer, layer.integers, axis),
        *_arrays(importer, layer, multiplier, shift),
    ]
    attrs: dict[str, Any] = {
        "strides": strides,
        "dilation": dilation,
        "padding": [*before, *after],
        "max_shift": int(shift.max(initial=0)),
        "rounding": rounding,
        **_requantization(importer, operator, layer),
    }
    if depthwise:
        return ops.qdepthwise(*arguments, **attrs)
    return ops.qconv2d(*arguments, groups=x.shape[3] // weight.shape[3], **attrs)


@integer("TRANSPOSE_CONV")
def _transposed(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    layer = _layer(importer, operator, 0, (2, 1, 3))
    multiplier, shift, rounding = _factors(operator, layer, operator.inputs[3] if len(operator.inputs) > 3 else None)
    x, out, options = layer.x, layer.out, operator.options
    strides = (options.StrideH(), options.StrideW())
    kernel = layer.weight.shape[1:3]
    before, _ = padding(operator, out.shape[1:3], x.shape[1:3], kernel, strides)
    # (O, H, W, I) as (I, O, H, W).
    weight = layer.integers.transpose(3, 0, 1, 2)
    call = _float_transposed(x.shape, weight.shape, strides, before, out.shape)
    stem = identifier(out.name)
    form = conv2d_form(call, importer.value(x), x.zero_point, weight, lambda expr, name: importer.emit(expr, f"{stem}.{name}"))
    result = ops.qconv2d(
        form.x,
        _weight(importer, layer, form.weight, 0),
        *_arrays(importer, layer, multiplier, shift, form.copies),
        strides=form.strides,
        padding=form.padding,
        dilation=form.dilation,
        groups=form.groups,
        rounding=rounding,
        max_shift=int(shift.max(initial=0)),
        **_requantization(importer, operator, layer),
    )
    return form.finish(result)


def _float_transposed(
    x: tuple[int, ...], weight: tuple[int, ...], strides: tuple[int, int], before: list[int], out: tuple[int, ...]
) -> relax.Call:
    """The geometry of a transposed convolution as the call of a float one, channels last."""
    after = [
        (size - 1) * stride + k - front - length
        for size, stride, k, front, length in zip(x[1:3], strides, weight[2:], before, out[1:3])
    ]
    call = relax.op.nn.conv2d_transpose(
        relax.Var("x", relax.TensorType(x, "float32")),
        relax.Var("w", relax.TensorType(weight, "float32")),
        strides=strides,
        padding=[*before, *(max(pad, 0) for pad in after)],
        output_padding=[max(-pad, 0) for pad in after],
        data_layout="NHWC",
        kernel_layout="IOHW",
    )
    return relax.BlockBuilder().normalize(call)


@integer("FULLY_CONNECTED")
def _fully_connected(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    layer = _layer(importer, operator, 0)
    x, out = layer.x, layer.out
    depth = layer.weight.shape[1]
    factors = [x.scale * s / out.scale for s in layer.scales]
    attrs = _requantization(importer, operator, layer)
    if importer.dense_rounding == "double" and x.dtype == "int8":
        if layer.weight.scales.size == 1:
            # TFLite multiplies in float32 here.
            factors = [float(np.float32(x.scale) * np.float32(layer.weight.scale)) / out.scale] * layer.channels
        multiplier, shift = quantize_multipliers(factors)
    else:
        limits = attrs["qmin"] - out.zero_point, attrs["qmax"] - out.zero_point
        multiplier, shift = exact_multipliers(factors, layer.sums, limits)
    value = importer.value(x)
    flat = value if x.shape[-1] == depth else relax.op.reshape(value, (-1, depth))
    call = ops.qdense(
        flat if isinstance(flat, relax.Var) else importer.emit(flat, f"{identifier(out.name)}.rows"),
        _weight(importer, layer, layer.integers, 0),
        *_arrays(importer, layer, multiplier, shift),
        rounding=importer.dense_rounding if x.dtype == "int8" else "single",
        max_shift=int(shift.max(initial=0)),
        **attrs,
    )
    return _as(importer, call, out)


def _as(importer: Importer, expr: relax.Expr, out: TfliteTensor) -> relax.Expr:
    """An expression in the shape that the file gives the result."""
    var = importer.emit(expr, identifier(out.name))
    return var if static_shape(var) == out.shape else relax.op.reshape(var, out.shape)


@integer("BATCH_MATMUL")
def _batch_matmul(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
    a, b, out = operator.operand(0), operator.operand(1), operator.output
    if "int16" in (a.dtype, b.dtype) or a.shape[-1] > ops.largest_depth(a.zero_point, b.zero_point):
        return importer.in_float(operator)
    operands = [
        _swapped(importer, tensor) if operator.option(name, False) else importer.value(tensor)
        for tensor, name in ((a, "AdjX"), (b, "AdjY"))
    ]
    return ops.qmatmul(
        *operands,
        input1_zero_point=a.zero_point,
        input2_zero_point=b.zero_point,
        output_zero_point=out.zero_point,
        **one_factor(a.scale * b.scale / out.scale),
    )


def _swapped(importer: Importer, tensor: TfliteTensor) -> relax.Expr:
    """A tensor with its last two axes exchanged."""
    last = len(tensor.shape) - 1
    return importer.emit(relax.op.permute_dims(importer.value(tensor), [*range(last - 1), last, last - 1]), "adjoint")
