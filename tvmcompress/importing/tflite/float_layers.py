"""TFLite layers on real numbers as Relax operators, images channels first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...passes._tvm import relax
from .file import TfliteOperator, TfliteTensor
from .geometry import activation_limits, padding
from .importer import Importer, identifier, real, real_values


def finish(importer: Importer, operator: TfliteOperator, expr: relax.Expr, *, first: bool = False) -> None:
    """Bind the result of an operator behind its fused activation."""
    low, high = activation_limits(importer, operator)
    if low is not None or high is not None:
        var = importer.emit(expr, f"{identifier(operator.output.name)}.linear")
        expr = relax.op.nn.relu(var) if (low, high) == (0.0, None) else relax.op.clip(var, low, high)
    importer.bind(operator.output, expr, first=first)


def _weight(importer: Importer, operator: TfliteOperator, tensor: TfliteTensor, value: np.ndarray) -> relax.Expr:
    if tensor.is_quantized:
        importer.remark(operator, f"has {tensor.bits}-bit weights and real inputs: the weights are imported as real numbers")
    return importer.param(tensor.name, value)


def _constant_weight(importer: Importer, operator: TfliteOperator, index: int = 1) -> tuple[TfliteTensor, np.ndarray]:
    tensor = operator.operand(index)
    if tensor.data is None:
        raise importer.refuse(operator, "its weights are not constant")
    return tensor, real_values(tensor)


def _biased(importer: Importer, operator: TfliteOperator, expr: relax.Expr, place: int, spatial: int) -> relax.Expr:
    """A result with the bias added to its channels, which are in front of `spatial` axes."""
    bias = operator.inputs[place] if len(operator.inputs) > place else None
    if bias is None:
        return expr
    stem = identifier(operator.output.name)
    value = importer.value(bias)
    if spatial:
        value = importer.emit(relax.op.reshape(value, (1, -1, *[1] * spatial)), f"{stem}.bias")
    return relax.op.add(importer.emit(expr, f"{stem}.product"), value)


@real("CONV_2D", "DEPTHWISE_CONV_2D")
def _convolution(importer: Importer, operator: TfliteOperator) -> None:
    x, out, options = operator.operand(0), operator.output, operator.options
    tensor, weight = _constant_weight(importer, operator)
    strides = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    before, after = padding(operator, x.shape[1:3], out.shape[1:3], weight.shape[1:3], strides, dilation)
    if operator.kind == "CONV_2D":
        groups, stored = x.shape[3] // weight.shape[3], weight.transpose(0, 3, 1, 2)
    else:
        groups, stored = x.shape[3], weight.transpose(3, 0, 1, 2)
    call = relax.op.nn.conv2d(
        importer.first(x),
        _weight(importer, operator, tensor, stored),
        strides=strides,
        padding=[*before, *after],
        dilation=dilation,
        groups=groups,
    )
    finish(importer, operator, _biased(importer, operator, call, 2, 2), first=True)


@real("CONV_3D")
def _convolution_3d(importer: Importer, operator: TfliteOperator) -> None:
    x, out, options = operator.operand(0), operator.output, operator.options
    tensor, weight = _constant_weight(importer, operator)
    strides = (options.StrideD(), options.StrideH(), options.StrideW())
    dilation = (options.DilationDFactor(), options.DilationHFactor(), options.DilationWFactor())
    before, after = padding(operator, x.shape[1:4], out.shape[1:4], weight.shape[:3], strides, dilation)
    call = relax.op.nn.conv3d(
        importer.first(x),
        # (D, H, W, I, O)
        _weight(importer, operator, tensor, weight.transpose(4, 3, 0, 1, 2)),
        strides=strides,
        padding=[*before, *after],
        dilation=dilation,
        groups=x.shape[4] // weight.shape[3],
    )
    finish(importer, operator, _biased(importer, operator, call, 2, 3), first=True)


@real("TRANSPOSE_CONV")
def _transposed(importer: Importer, operator: TfliteOperator) -> None:
    x, out, options = operator.operand(2), operator.output, operator.options
    tensor, weight = _constant_weight(importer, operator)
    strides = (options.StrideH(), options.StrideW())
    kernel = weight.shape[1:3]
    before, _ = padding(operator, out.shape[1:3], x.shape[1:3], kernel, strides)
    after = [
        (size - 1) * stride + k - front - length
        for size, stride, k, front, length in zip(x.shape[1:3], strides, kernel, before, out.shape[1:3])
    ]
    call = relax.op.nn.conv2d_transpose(
        importer.first(x),
        _weight(importer, operator, tensor, weight.transpose(3, 0, 1, 2)),
        strides=strides,
        padding=[*before, *(max(pad, 0) for pad in after)],
        output_padding=[max(-pad, 0) for pad in after],
    )
    finish(importer, operator, _biased(importer, operator, call, 3, 2), first=True)


@real("FULLY_CONNECTED")
def _fully_connected(importer: Importer, operator: TfliteOperator) -> None:
    x, out = operator.operand(0), operator.output
    tensor = operator.operand(1)
    stem, depth = identifier(out.name), tensor.shape[1]
    value = importer.value(x)
    if x.shape[-1] != depth:
        value = importer.emit(relax.op.reshape(value, (-1, depth)), f"{stem}.rows")
    weight = importer.value(tensor) if tensor.data is None else _weight(importer, operator, tensor, real_values(tensor))
    transposed = importer.emit(relax.op.permute_dims(weight, [1, 0]), f"{stem}.transposed")
    result = _biased(importer, operator, relax.op.matmul(value, transposed), 2, 0)
    var = importer.emit(result, f"{stem}.product")
    finish(importer, operator, var if tuple(int(d) for d in var.ty.shape) == out.shape else relax.op.reshape(var, out.shape))


@real("BATCH_MATMUL")
def _batch_matmul(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    operands = []
    for index, name in enumerate(("AdjX", "AdjY")):
        tensor = operator.operand(index)
        stored = tensor.data is not None and tensor.is_quantized
        value = importer.param(tensor.name, real_values(tensor)) if stored else importer.value(tensor)
        last = len(tensor.shape) - 1
        if operator.option(name, False):
            value = importer.emit(relax.op.permute_dims(value, [*range(last - 1), last, last - 1]), "adjoint")
        operands.append(value)
    return relax.op.matmul(*operands)


@real("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(importer: Importer, operator: TfliteOperator) -> None:
    x, out, options = operator.operand(0), operator.output, operator.options
    kernel = (options.FilterHeight(), options.FilterWidth())
    strides = (options.StrideH(), options.StrideW())
    before, after = padding(operator, x.shape[1:3], out.shape[1:3], kernel, strides)
    average = operator.kind == "AVERAGE_POOL_2D"
    make = relax.op.nn.avg_pool2d if average else relax.op.nn.max_pool2d
    # What lies outside does not count.
    extra = {"count_include_pad": False} if average else {}
    pooled = make(importer.first(x), kernel, strides, [*before, *after], **extra)
    finish(importer, operator, pooled, first=True)


@real("MEAN", "SUM")
def _mean(importer: Importer, operator: TfliteOperator) -> None:
    make = relax.op.mean if operator.kind == "MEAN" else relax.op.sum
    x, keep = operator.operand(0), bool(operator.option("KeepDims", False))
    axes = sorted({axis % len(x.shape) for axis in operator.integers(1)})
    expr, places = importer.moved(x)
    kept = _kept_in_order(axes, len(x.shape))
    if keep or not (importer.is_first(x) and not kept):
        own = expr if keep or kept else importer.value(x)
        reduced = make(own, sorted(places[axis] for axis in axes) if own is expr else axes, keep)
        importer.bind(operator.output, reduced, first=keep and importer.is_first(x))
        return
    importer.bind(operator.output, make(importer.value(x), axes, keep))


def _kept_in_order(axes: Sequence[int], rank: int) -> bool:
    """Whether the axes that a reduction leaves are in the same order with the channels first."""
    left = [axis for axis in range(rank) if axis not in axes]
    moved = [axis for axis in (0, rank - 1, *range(1, rank - 1)) if axis in left]
    return moved == left


@real("SOFTMAX", "LOG_SOFTMAX")
def _softmax(importer: Importer, operator: TfliteOperator) -> None:
    x = operator.operand(0)
    expr, places = importer.moved(x)
    beta = float(operator.option("Beta", 1.0)) if operator.kind == "SOFTMAX" else 1.0
    if beta != 1.0:
        expr = importer.emit(
            relax.op.multiply(expr, relax.const(np.float32(beta))), f"{identifier(operator.output.name)}.scaled"
        )
    make = relax.op.nn.softmax if operator.kind == "SOFTMAX" else relax.op.nn.log_softmax
    importer.bind(operator.output, make(expr, places[-1]), first=importer.is_first(x))


@real("L2_NORMALIZATION")
def _l2_normalization(importer: Importer, operator: TfliteOperator) -> None:
    x, stem = operator.operand(0), identifier(operator.output.name)
    expr, places = importer.moved(x)
    square = importer.emit(relax.op.multiply(expr, expr), f"{stem}.square")
    total = importer.emit(relax.op.sum(square, [places[-1]], True), f"{stem}.sum")
    length = importer.emit(relax.op.sqrt(importer.emit(relax.op.maximum(total, relax.const(np.float32(1e-12))), stem)), stem)
    finish(importer, operator, relax.op.divide(expr, length), first=importer.is_first(x))


@real("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def _resize(importer: Importer, operator: TfliteOperator) -> None:
    out = operator.output
    align, half = bool(operator.option("AlignCorners", False)), bool(operator.option("HalfPixelCenters", False))
    linear = operator.kind == "RESIZE_BILINEAR"
    mode = "align_corners" if align else "half_pixel" if half else "asymmetric"
    # TVM divides by the last place of the output; the first pixel of two is that of one.
    grown = [max(size, 2) if align else size for size in out.shape[1:3]]
    resized = relax.op.image.resize2d(
        importer.first(operator.operand(0)),
        relax.ShapeExpr(grown),
        layout="NCHW",
        method="linear" if linear else "nearest_neighbor",
        coordinate_transformation_mode=mode,
        rounding_method="" if linear else "floor" if mode == "asymmetric" else "round",
    )
    if grown != list(out.shape[1:3]):
        larger = importer.emit(resized, f"{identifier(out.name)}.grown")
        resized = relax.op.strided_slice(larger, [2, 3], [0, 0], list(out.shape[1:3]))
    importer.bind(out, resized, first=True)
