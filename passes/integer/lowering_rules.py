"""How each operator between quantize and dequantize becomes an integer operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._tvm import relax
from ..affine import Affine, Range, affine_of_range
from ..meanings.registry import ints
from ..meanings.resize import source_rows
from ..module_params import static_shape
from . import ops
from .bounds import fits_int32
from .lowering import CannotLowerError, Integers, Lowering, Wanted, lowering_rule
from .pool import mean_multiplier
from .requantize import quantize_multipliers
from .softmax import OUTPUT_SCALE, OUTPUT_ZERO_POINT

_LAYERS = ("relax.nn.conv2d", "relax.matmul")


@lowering_rule("nn.conv2d", "matmul")
def _layer_without_bias(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    return _layer(lower, var, call, None, wanted)


@lowering_rule("add", "subtract", "multiply")
def _sum(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    if call.op.name == "relax.add":
        for first, second in (call.args, list(call.args)[::-1]):
            layer = lower.source(first)
            if isinstance(layer, relax.Call) and layer.op.name in _LAYERS and lower.real_constant(second) is not None:
                return _layer(lower, first, layer, second, wanted)
    a, b = (_operand(lower, arg, call) for arg in call.args)
    qmin, qmax = wanted.limits
    common: dict[str, Any] = {
        "input1_zero_point": a.affine.zero_point,
        "input2_zero_point": b.affine.zero_point,
        "output_zero_point": wanted.affine.zero_point,
        "qmin": qmin,
        "qmax": qmax,
        "rounding": lower.rounding,
    }
    if call.op.name == "relax.multiply":
        multiplier, shift = lower.factor(a.affine.scale * b.affine.scale / wanted.affine.scale)
        return ops.qmul(a.expr, b.expr, multiplier=multiplier, shift=shift, **common)
    try:
        factors = ops.add_parameters(a.affine.scale, b.affine.scale, wanted.affine.scale, lower.rounding)
    except ValueError as error:
        raise CannotLowerError(f"its scales do not fit: {error}") from None
    make = ops.qadd if call.op.name == "relax.add" else ops.qsub
    return make(a.expr, b.expr, **{**common, **factors})


def _operand(lower: Lowering, expr: relax.Expr, call: relax.Call) -> Integers:
    """An operand of a sum or product; a constant is quantized over its own range."""
    if lower.is_integers(expr):
        return lower.integers(expr)
    weights = lower.constant(expr)
    if weights is not None and weights.scales.size == 1 and np.abs(weights.integers).max(initial=0) <= 128:
        shift = int(np.clip(weights.integers.max(initial=0) - 127, 0, None))
        stored = (weights.integers - shift).astype(np.int8)
        return Integers(lower.param(weights.name, stored), Affine(float(weights.scales[0]), -shift))
    known = lower.real_constant(expr)
    if known is None or known[0].size == 1:
        return lower.integers(expr)
    value, name = known
    affine = affine_of_range(Range(float(value.min()), float(value.max())))
    return Integers(lower.param(name, affine.quantize(value)), affine)


def _layer(lower: Lowering, var: relax.Expr, call: relax.Call, bias: relax.Expr | None, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    weights = lower.constant(call.args[1])
    if weights is None:
        raise CannotLowerError("its weights are not quantized constants")
    if np.abs(weights.integers).max(initial=0) > 128 or weights.integers.max(initial=0) > 127:
        raise CannotLowerError("its weights do not fit int8 with the zero point 0")
    convolution = call.op.name == "relax.nn.conv2d"
    if convolution and (str(call.attrs.data_layout), str(call.attrs.kernel_layout)) != ("NHWC", "OHWI"):
        raise CannotLowerError(f"its layout is {call.attrs.data_layout}, {call.attrs.kernel_layout}")
    if not convolution and weights.integers.ndim != 2:
        raise CannotLowerError("its weights are not a matrix")
    # Output channels first.
    integers = weights.integers if convolution else weights.integers.T
    if weights.scales.size > 1 and weights.axis != (0 if convolution else 1):
        raise CannotLowerError("its weights are not quantized along the output channels")
    channels = integers.shape[0]
    scales = np.broadcast_to(weights.scales, (channels,))
    products = np.float32(x.affine.scale) * scales
    offsets, bias_name = _integer_bias(lower, bias, products, channels)
    stem = var.name if isinstance(var, relax.Var) else wanted.name
    if not fits_int32(integers.reshape(channels, -1), offsets, x.affine.zero_point):
        raise CannotLowerError("its sums of products could leave 32 bits")
    factors = float(x.affine.scale) * scales.astype(np.float64) / wanted.affine.scale
    try:
        multiplier, shift = quantize_multipliers(list(factors), lower.rounding)
    except ValueError as error:
        raise CannotLowerError(f"its scales do not fit: {error}") from None
    depthwise = convolution and int(call.attrs.groups) > 1 and integers.shape[3] == 1
    stored = integers[..., 0].transpose(1, 2, 0)[None] if depthwise else integers
    arrays = (
        lower.weight(weights.name, stored.astype(np.int8), output_axis=3 if depthwise else 0),
        lower.param(bias_name or f"{stem}.bias", offsets.astype(np.int32)),
        lower.param(f"{stem}.multiplier", multiplier),
        lower.param(f"{stem}.shift", shift),
    )
    qmin, qmax = wanted.limits
    common: dict[str, Any] = {
        "input_zero_point": x.affine.zero_point,
        "output_zero_point": wanted.affine.zero_point,
        "qmin": qmin,
        "qmax": qmax,
        "rounding": lower.rounding,
        "max_shift": int(shift.max()),
    }
    if not convolution:
        return ops.qdense(x.expr, *arrays, **common)
    geometry: dict[str, Any] = {key: ints(getattr(call.attrs, key)) for key in ("strides", "padding", "dilation")}
    if depthwise:
        return ops.qdepthwise(x.expr, *arrays, **{**geometry, **common})
    return ops.qconv2d(x.expr, *arrays, **{**geometry, **common}, groups=int(call.attrs.groups))


def _integer_bias(
    lower: Lowering, bias: relax.Expr | None, products: np.ndarray, channels: int
) -> tuple[np.ndarray, str | None]:
    """(int64 (O,), name): the bias in units of input scale * weight scale."""
    if bias is None:
        return np.zeros(channels, np.int64), None
    weights = lower.constant(bias)
    if weights is not None and weights.integers.size == channels:
        scales = np.broadcast_to(weights.scales, (channels,))
        if np.allclose(scales, products, rtol=1e-5, atol=0.0):
            return weights.integers.reshape(-1), weights.name
    known = lower.real_constant(bias)
    if (
        known is None
        or known[0].size not in (1, channels)
        or (known[0].ndim and known[0].shape[-1] not in (1, channels))
    ):
        raise CannotLowerError("what is added to it is not one value an output channel")
    value = np.broadcast_to(known[0].reshape(-1), (channels,))
    return np.rint(value / products.astype(np.float64)).astype(np.int64), known[1]


@lowering_rule("mean")
def _mean(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    if call.attrs.axis is None:
        raise CannotLowerError("it is over all axes")
    rank = len(static_shape(call.args[0]))
    axes = sorted(axis % rank for axis in ints(call.attrs.axis))
    return _integer_mean(lower, x, static_shape(call.args[0]), axes, bool(call.attrs.keepdims), wanted)


def _integer_mean(
    lower: Lowering, x: Integers, shape: Sequence[int], axes: Sequence[int], keepdims: bool, wanted: Wanted
) -> relax.Expr:
    count = int(np.prod([shape[axis] for axis in axes]))
    if lower.rounding == "double":
        multiplier, shift = mean_multiplier(*lower.factor(x.affine.scale / wanted.affine.scale), count)
    else:
        multiplier, shift = lower.factor(x.affine.scale / wanted.affine.scale / count)
    qmin, qmax = wanted.limits
    return ops.qmean(
        x.expr,
        axes=axes,
        keepdims=keepdims,
        input_zero_point=x.affine.zero_point,
        output_zero_point=wanted.affine.zero_point,
        multiplier=multiplier,
        shift=shift,
        qmin=qmin,
        qmax=qmax,
        rounding=lower.rounding,
    )


@lowering_rule("nn.adaptive_avg_pool2d")
def _adaptive_avg_pool(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    shape = static_shape(call.args[0])
    if str(call.attrs.layout) != "NHWC" or static_shape(call)[1:3] != (1, 1):
        raise CannotLowerError("it is not a mean over the whole image")
    return _integer_mean(lower, lower.integers(call.args[0]), shape, [1, 2], True, wanted)


@lowering_rule("nn.avg_pool2d", "nn.max_pool2d")
def _pool(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    attrs = call.attrs
    if str(attrs.layout) != "NHWC" or any(int(d) != 1 for d in attrs.dilation):
        raise CannotLowerError("its layout or dilation is not supported")
    x = lower.integers(call.args[0])
    average = call.op.name == "relax.nn.avg_pool2d"
    _, h, w, _ = shape = static_shape(call.args[0])
    kernel, strides, padding = ints(attrs.pool_size), ints(attrs.strides), ints(attrs.padding)
    if average and kernel == [h, w] and not any(padding) and x.affine != wanted.affine:
        return _integer_mean(lower, x, shape, [1, 2], True, wanted)
    top, left, bottom, right = padding
    out = static_shape(call)[1:3]
    # Rounding up the size of the result is padding at the bottom and at the right.
    bottom = max(bottom, (out[0] - 1) * strides[0] + kernel[0] - h - top)
    right = max(right, (out[1] - 1) * strides[1] + kernel[1] - w - left)
    expr = x.expr
    if average and attrs.count_include_pad and any(padding):
        if [bottom, right] != padding[2:]:
            raise CannotLowerError("its padding counts, and its size is rounded up")
        width = [0, 0, top, bottom, left, right, 0, 0]
        expr = lower.emit(ops.qpad(expr, pad_width=width, value=x.affine.zero_point), f"{wanted.name}.pad")
        top = left = bottom = right = 0
    same = x.affine == wanted.affine
    qmin, qmax = wanted.limits if same else wanted.affine.limits
    make = ops.qavgpool if average else ops.qmaxpool
    pooled = make(expr, pool_size=kernel, strides=strides, padding=[top, left, bottom, right], qmin=qmin, qmax=qmax)
    return pooled if same else _then_rescaled(lower, pooled, x.affine, wanted)


def _then_rescaled(lower: Lowering, expr: relax.Expr, affine: Affine, wanted: Wanted) -> relax.Expr:
    """An operator that keeps the scale of its input, and the change to the scale that is wanted, if it is another."""
    if affine == wanted.affine and wanted.limits == wanted.affine.limits:
        return expr
    return lower.rescaled(Integers(lower.emit(expr, f"{wanted.name}.unscaled"), affine), wanted)


@lowering_rule("reshape", "permute_dims", "squeeze", "expand_dims", "flatten", "strided_slice", "flip")
def _move(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    moved = relax.Call(call.op, [x.expr, *list(call.args)[1:]], call.attrs, call.ty_args)
    return _then_rescaled(lower, moved, x.affine, wanted)


@lowering_rule("split")
def _split(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    item = lower.source(var)
    if not isinstance(item, relax.TupleGetItem):
        raise CannotLowerError("its parts are not taken one by one")
    x = lower.integers(call.args[0])
    parts = lower.emit(relax.Call(call.op, [x.expr, *list(call.args)[1:]], call.attrs), f"{wanted.name}.parts")
    return _then_rescaled(lower, relax.TupleGetItem(parts, item.index), x.affine, wanted)


@lowering_rule("concat")
def _concat(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    tensors = [_operand(lower, field, call) for field in fields]
    if not tensors or call.attrs.axis is None:
        raise CannotLowerError("its operands are not known one by one")
    same = [tensor.affine == wanted.affine for tensor in tensors]
    factors = [
        ops.IDENTITY if equal else lower.factor(tensor.affine.scale / wanted.affine.scale)
        for equal, tensor in zip(same, tensors)
    ]
    qmin, qmax = wanted.limits
    return ops.qconcat(
        [tensor.expr for tensor in tensors],
        axis=int(call.attrs.axis) % len(static_shape(call)),
        input_zero_points=[tensor.affine.zero_point for tensor in tensors],
        multipliers=[multiplier for multiplier, _ in factors],
        shifts=[shift for _, shift in factors],
        output_zero_point=wanted.affine.zero_point,
        qmin=qmin,
        qmax=qmax,
        rounding=lower.rounding,
    )


@lowering_rule("nn.pad")
def _pad(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    if str(call.attrs.pad_mode) != "constant":
        raise CannotLowerError(f"it pads by '{call.attrs.pad_mode}'")
    value = int(x.affine.quantize(np.asarray(float(call.attrs.pad_value))))
    padded = ops.qpad(x.expr, pad_width=ints(call.attrs.pad_width), value=value)
    return _then_rescaled(lower, padded, x.affine, wanted)


@lowering_rule("image.resize2d")
def _resize(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x, attrs = lower.integers(call.args[0]), call.attrs
    method, mode, rounding = str(attrs.method), str(attrs.coordinate_transformation_mode), str(attrs.rounding_method)
    if str(attrs.layout) != "NHWC" or method not in ("nearest_neighbor", "linear"):
        raise CannotLowerError(f"it resizes by '{method}'")
    _, h, w, _ = static_shape(call.args[0])
    _, oh, ow, _ = static_shape(call)
    try:
        rows, down = source_rows(h, oh, method, mode, rounding)
        columns, right = source_rows(w, ow, method, mode, rounding)
    except NotImplementedError as error:
        raise CannotLowerError(str(error)) from None
    resized = ops.qresize(
        x.expr,
        rows=rows.tolist(),
        columns=columns.tolist(),
        row_weights=None if down is None else np.rint(down * 1024).astype(int).tolist(),
        column_weights=None if right is None else np.rint(right * 1024).astype(int).tolist(),
    )
    return _then_rescaled(lower, resized, x.affine, wanted)


@lowering_rule("nn.softmax")
def _softmax(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    rank = len(static_shape(call))
    if int(call.attrs.axis) % rank != rank - 1:
        raise CannotLowerError("it is not over the last axis")
    if static_shape(call)[-1] > 4095:
        raise CannotLowerError("it is over more than 4095 elements")
    table = lower.param(f"{wanted.name}.exponentials", ops.exponentials(x.affine.scale))
    return _then_rescaled(lower, ops.qsoftmax(x.expr, table), Affine(OUTPUT_SCALE, OUTPUT_ZERO_POINT), wanted)
