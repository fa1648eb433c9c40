"""How layers, sums and products between quantize and dequantize become integer operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._tvm import relax
from ..graph.module_params import static_shape
from ..integer import ops
from ..integer.requantize import INT32_MAX, quantize_multipliers, reduce_multiplier
from ..quantization.kinds import WEIGHTED, op_name, scaled_by, weight_axis
from .bounds import fits_int32
from .conv2d_form import conv2d_form
from .rules_products import product
from .walk import CannotLowerError, Lowering, Wanted, lowering_rule, operand


@lowering_rule(*(name.removeprefix("relax.") for name in WEIGHTED), wide=True)
def _layer_without_bias(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    if call.op.name == "relax.matmul" and not _has_matrix(lower, call):
        return product(lower, call, wanted)
    return _layer(lower, var, call, None, wanted)


def _has_matrix(lower: Lowering, call: relax.Call) -> bool:
    """Whether a matrix product is one of a tensor with weights, which may have a scale for each output channel."""
    weights = lower.constant(call.args[1])
    return weights is not None and weights.integers.ndim == 2


@lowering_rule("add", "subtract", "multiply", "divide", wide=True)
def _sum(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    if call.op.name == "relax.add":
        for first, second in (call.args, list(call.args)[::-1]):
            layer = lower.source(first)
            if not isinstance(layer, relax.Call) or op_name(layer) not in WEIGHTED:
                continue
            if lower.constant(layer.args[1]) is not None and lower.real_constant(second) is not None:
                return _layer(lower, first, layer, second, wanted)
    scaled = scaled_by(call, lower.params)
    if scaled is not None and not lower.is_integers(scaled[0]):
        return lower.scaled(*scaled, wanted)
    a, b = (operand(lower, arg) for arg in call.args)
    wide = "int16" in (a.affine.dtype, b.affine.dtype)
    if call.op.name == "relax.divide":
        if wide or wanted.affine.dtype == "int16":
            raise CannotLowerError("it has no form for int16")
        table = lower.param(f"{wanted.name}.reciprocals", ops.reciprocals(a.affine.scale, b.affine, wanted.affine.scale))
        zeros = {"input1_zero_point": a.affine.zero_point, "output_zero_point": wanted.affine.zero_point}
        qmin, qmax = wanted.limits
        return ops.qdivide(a.expr, b.expr, table, qmin=qmin, qmax=qmax, **zeros)
    zero_points = {"input1_zero_point": a.affine.zero_point, "input2_zero_point": b.affine.zero_point}
    if call.op.name == "relax.multiply":
        return ops.qmul(a.expr, b.expr, **zero_points, **lower.requantization(wanted, a.affine.scale * b.affine.scale))
    try:
        left_shift = ops.WIDE_LEFT_SHIFT if wide else ops.ADD_LEFT_SHIFT
        factors = ops.add_parameters(a.affine.scale, b.affine.scale, wanted.affine.scale, lower.rounding, left_shift)
    except ValueError as error:
        raise CannotLowerError(f"its scales do not fit: {error}") from None
    make = ops.qadd if call.op.name == "relax.add" else ops.qsub
    return make(a.expr, b.expr, **zero_points, **factors, **lower.result(wanted))


def _layer(lower: Lowering, var: relax.Expr, call: relax.Call, bias: relax.Expr | None, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    weights = lower.constant(call.args[1])
    if weights is None:
        raise CannotLowerError("its weights are not quantized constants")
    if np.abs(weights.integers).max(initial=0) > 128 or weights.integers.max(initial=0) > 127:
        raise CannotLowerError("its weights do not fit int8 with the zero point 0")
    convolution = call.op.name != "relax.matmul"
    if convolution and not str(call.attrs.data_layout).endswith("C"):
        raise CannotLowerError(f"its layout is {call.attrs.data_layout}, {call.attrs.kernel_layout}")
    if not convolution and weights.integers.ndim != 2:
        raise CannotLowerError("its weights are not a matrix")
    if weights.scales.size > 1 and weights.axis != weight_axis(call):
        raise CannotLowerError("its weights are not quantized along the output channels")
    channels = static_shape(call)[-1]
    # Groups of a transposed convolution share the scales of their channels.
    scales = np.tile(weights.scales, channels // weights.scales.size)
    products = np.float32(x.affine.scale) * scales
    offsets, bias_name = _integer_bias(lower, bias, products, channels)
    stem = var.name if isinstance(var, relax.Var) else wanted.name
    # Output channels first.
    integers = weights.integers.T
    if convolution:
        form = conv2d_form(call, x.expr, x.affine.zero_point, weights.integers, _emitter(lower, stem))
        integers, channels = form.weight, channels * form.copies
        scales, offsets = scales.repeat(form.copies), offsets.repeat(form.copies)
    fits = fits_int32(integers.reshape(channels, -1), offsets, x.affine.zero_point, *x.affine.limits)
    if np.abs(offsets).max(initial=0) > INT32_MAX:
        raise CannotLowerError("its bias leaves 32 bits")
    # TensorFlow Lite adds up products of int16 in 64 bits; where all sums fit 32, they are the same there.
    wide = x.affine.dtype == "int16" or not fits
    factors = float(x.affine.scale) * scales.astype(np.float64) / wanted.affine.scale
    try:
        multiplier, shift = quantize_multipliers(list(factors), "double" if wide else lower.rounding)
        if wide:
            multiplier = np.array([reduce_multiplier(int(m), int(s))[0] for m, s in zip(multiplier, shift)], np.int32)
    except ValueError as error:
        raise CannotLowerError(f"its scales do not fit: {error}") from None
    depthwise = convolution and form.groups > 1 and integers.shape[3] == 1
    stored = integers[..., 0].transpose(1, 2, 0)[None] if depthwise else integers
    arrays = (
        lower.weight(weights.name, stored.astype(np.int8), output_axis=3 if depthwise else 0),
        lower.param(bias_name or f"{stem}.bias", offsets.astype(np.int32)),
        lower.param(f"{stem}.multiplier", multiplier),
        lower.param(f"{stem}.shift", shift),
    )
    common: dict[str, Any] = {"input_zero_point": x.affine.zero_point, **lower.result(wanted), "max_shift": int(shift.max())}
    if wide:
        common |= {"rounding": "reduced", "accumulator": "int32" if fits else "int64"}
    if not convolution:
        return ops.qdense(x.expr, *arrays, **common)
    common |= {"strides": form.strides, "padding": form.padding, "dilation": form.dilation}
    if depthwise:
        return form.finish(ops.qdepthwise(form.x, *arrays, **common))
    return form.finish(ops.qconv2d(form.x, *arrays, **common, groups=form.groups))


def _emitter(lower: Lowering, stem: str) -> Callable[[relax.Expr, str], relax.Var]:
    return lambda expr, name: lower.emit(expr, f"{stem}.{name}")


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
    if known is None or known[0].size not in (1, channels) or (known[0].ndim and known[0].shape[-1] not in (1, channels)):
        raise CannotLowerError("what is added to it is not one value an output channel")
    value = np.broadcast_to(known[0].reshape(-1), (channels,))
    return np.rint(value / products.astype(np.float64)).astype(np.int64), known[1]
