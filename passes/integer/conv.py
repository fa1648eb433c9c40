"""Integer convolutions, in TensorFlow Lite's layouts: activations NHWC, weights OHWI, depthwise weights 1HWC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .registry import activation_dtypes, check_tensor, register_typed, result_dtype, tensor_type
from .requantization import LayerRequantization, requantized_call
from .requantize import te_requantize


def output_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Length of one spatial axis after a window operation."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def qconv2d(
    x: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr,
    multiplier: relax.Expr,
    shift: relax.Expr,
    *,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    input_zero_point: int,
    **requantization: Unpack[LayerRequantization],
) -> relax.Call:
    """Convolution: requantize(bias + sum((x - input_zero_point) * weight)).

    Args:
        x: int8 (N, H, W, C), padded with `input_zero_point`.
        weight: int8 (O, KH, KW, C / groups), zero point 0.
        bias: int32 (O,), scale input scale * weight scale.
        multiplier: int32 (O,), see `requantize.quantize_multiplier`.
        shift: int32 (O,).
        strides: Rows, columns.
        padding: Top, left, bottom, right.
        dilation: Rows, columns.
        groups: Divides C and O; output channel o reads group o // (O / groups).
        input_zero_point: Of x.
        requantization: From input scale * weight scale.

    Returns:
        A call of type int8 (N, OH, OW, O).
    """
    geometry = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    return layer_call("conv2d", [x, weight, bias, multiplier, shift], requantization, input_zero_point, **geometry)


def qdepthwise(
    x: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr,
    multiplier: relax.Expr,
    shift: relax.Expr,
    *,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    input_zero_point: int,
    **requantization: Unpack[LayerRequantization],
) -> relax.Call:
    """Depthwise convolution; as `qconv2d` but for the weight.

    Args:
        weight: int8 (1, KH, KW, O), where O is C times the depth multiplier; output channel o reads input channel
            o // multiplier.
    """
    geometry = {"strides": strides, "padding": padding, "dilation": dilation}
    return layer_call("depthwise", [x, weight, bias, multiplier, shift], requantization, input_zero_point, **geometry)


def layer_call(
    name: str, args: list[relax.Expr], requantization: LayerRequantization, input_zero_point: int, **geometry: Any
) -> relax.Call:
    """A call of a layer on (x, weight, bias, multiplier, shift)."""
    record = {"max_shift": 30, **requantization}
    return requantized_call(name, args, record, **geometry, input_zero_point=input_zero_point)


def check_channels(op: str, call: relax.Call, channels: int, first: int = 2) -> None:
    """Check bias, multiplier and shift of a call."""
    for role, expr in zip(("bias", "multiplier", "shift"), call.args[first:]):
        check_tensor(op, role, expr, ("int32",), (channels,))


def output_sizes(call: relax.Call, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of what a convolution with these attributes gives."""
    attrs = call.attrs
    top, left, bottom, right = (int(pad) for pad in attrs.padding)
    (sh, sw), (dh, dw) = attrs.strides, attrs.dilation
    out = (output_size(size[0], kernel[0], sh, top, bottom, dh), output_size(size[1], kernel[1], sw, left, right, dw))
    if min(out) < 1:
        raise ValueError(f"{call.op.name}: the window {tuple(kernel)} is larger than the padded input {tuple(size)}")
    return out


def _infer_conv(call: relax.Call) -> relax.TensorType:
    name, groups = call.op.name, int(call.attrs.groups)
    check_tensor(name, "the input", call.args[0], activation_dtypes(call), (None,) * 4)
    n, h, w, c = static_shape(call.args[0])
    check_tensor(name, "the weight", call.args[1], ("int8",), (None, None, None, c // groups))
    o, kh, kw, _ = static_shape(call.args[1])
    if c % groups or o % groups:
        raise ValueError(f"{name}: {groups} groups do not divide {c} input and {o} output channels")
    check_channels(name, call, o)
    return tensor_type((n, *output_sizes(call, (h, w), (kh, kw)), o), result_dtype(call.attrs))


def _infer_depthwise(call: relax.Call) -> relax.TensorType:
    name = call.op.name
    check_tensor(name, "the input", call.args[0], activation_dtypes(call), (None,) * 4)
    n, h, w, c = static_shape(call.args[0])
    check_tensor(name, "the weight", call.args[1], ("int8",), (1, None, None, None))
    _, kh, kw, o = static_shape(call.args[1])
    if o % c:
        raise ValueError(f"{name}: {o} output channels are no multiple of {c} input channels")
    check_channels(name, call, o)
    return tensor_type((n, *output_sizes(call, (h, w), (kh, kw)), o), result_dtype(call.attrs))


def accumulator_dtype(attrs: Any) -> str:
    """The dtype in which a layer adds up products; what fits int32 is the same in int64."""
    return str(getattr(attrs, "accumulator", "int32"))


def te_pad(x: Any, padding: Sequence[int], value: int) -> Any:
    """An NHWC tensor with a border of `value`: top, left, bottom, right."""
    top, left, bottom, right = (int(pad) for pad in padding)
    if not (top or left or bottom or right):
        return x
    n, h, w, c = (int(dim) for dim in x.shape)

    def element(b: Any, i: Any, j: Any, k: Any) -> Any:
        inside = tirx.all(i >= top, i < top + h, j >= left, j < left + w)
        return tirx.if_then_else(inside, x[b, i - top, j - left, k], tirx.const(value, x.dtype))

    return te.compute((n, h + top + bottom, w + left + right, c), element, name="padded")


def te_epilogue(acc: Any, bias: Any, multiplier: Any, shift: Any, attrs: Any) -> Any:
    """Bias and requantization along the last axis."""
    # The biased sum is a buffer of its own; see te_multiply.
    biased = te.compute(acc.shape, lambda *i: acc(*i) + bias[i[-1]].astype(acc.dtype), name="biased")
    return te.compute(
        acc.shape, lambda *i: te_requantize(biased(*i), attrs, multiplier[i[-1]], shift[i[-1]]), name="requantized"
    )


def te_window_sums(
    x: Any,
    attrs: Any,
    shape: Sequence[Any],
    kernel: Sequence[int],
    product: Callable[..., Any],
    name: str,
    *,
    depth: int | None,
    fill: int = 0,
) -> Any:
    """The sums of a convolution over the windows of an NHWC tensor.

    Args:
        x: The tensor.
        attrs: With strides, padding and dilation.
        shape: Of the result.
        kernel: Rows, columns.
        product: Given an element of the tensor, the output channel, and the places of row, column and depth in the kernel.
        name: Of what is computed.
        depth: Input channels that an output channel reads; None for a depthwise convolution, whose kernel has no such axis.
        fill: What padding holds.
    """
    padded = te_pad(x, attrs.padding, fill)
    (sh, sw), (dh, dw) = attrs.strides, attrs.dilation
    rows, cols = te.reduce_axis((0, kernel[0]), "kh"), te.reduce_axis((0, kernel[1]), "kw")
    depths = [] if depth is None else [te.reduce_axis((0, depth), "ic")]
    groups = int(x.shape[3]) // (depth or 1)
    per_group = int(shape[3]) // groups

    def element(n: Any, i: Any, j: Any, k: Any) -> Any:
        channel = k // per_group
        for inner in depths:
            channel = inner if groups == 1 else channel * depth + inner
        value = padded[n, i * sh + rows * dh, j * sw + cols * dw, channel]
        return te.sum(product(value, k, rows, cols, *depths), axis=[rows, cols, *depths])

    return te.compute(shape, element, name=name)


def _define_conv(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    attrs = call.attrs
    zero, kind = int(attrs.input_zero_point), accumulator_dtype(attrs)
    _, kh, kw, depth = static_shape(call.args[1])

    def product(value: Any, k: Any, *place: Any) -> Any:
        return (value.astype(kind) - tirx.const(zero, kind)) * weight(k, *place).astype(kind)

    acc = te_window_sums(x, attrs, _infer_conv(call).shape, (kh, kw), product, "conv", depth=depth, fill=zero)
    return te_epilogue(acc, bias, multiplier, shift, attrs)


def _define_depthwise(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    attrs = call.attrs
    zero, kind = int(attrs.input_zero_point), accumulator_dtype(attrs)
    _, kh, kw, _ = static_shape(call.args[1])

    def product(value: Any, k: Any, row: Any, col: Any) -> Any:
        return (value.astype(kind) - tirx.const(zero, kind)) * weight[0, row, col, k].astype(kind)

    acc = te_window_sums(x, attrs, _infer_depthwise(call).shape, (kh, kw), product, "depthwise", depth=None, fill=zero)
    return te_epilogue(acc, bias, multiplier, shift, attrs)


register_typed("conv2d", 5, "Integer convolution with requantization", _infer_conv, _define_conv)
register_typed("depthwise", 5, "Integer depthwise convolution with requantization", _infer_depthwise, _define_depthwise)


def weight_as_oi(call: relax.Call, weight: np.ndarray) -> np.ndarray:
    """The weight of a `qconv2d`, `qdepthwise` or `qdense` as (O, everything else)."""
    if call.op.name.endswith("depthwise"):
        return weight.reshape(-1, weight.shape[3]).T
    return weight.reshape(weight.shape[0], -1)
