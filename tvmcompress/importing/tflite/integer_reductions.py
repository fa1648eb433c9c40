"""Quantized TFLite means, sums, pools, softmax, concatenation and resizing as our integer operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...passes._tvm import relax
from ...passes.integer import ops
from ...passes.integer.requantize import INT32_MAX, quantize_multiplier
from ...passes.integer.softmax import MAX_ELEMENTS, OUTPUT_SCALE, OUTPUT_ZERO_POINT
from ...passes.integer.wide_softmax import WIDE_MAX_ELEMENTS, WIDE_OUTPUT_SCALE
from .file import TfliteOperator, TfliteTensor
from .geometry import clip, padding, rescaling
from .importer import Importer, integer


def same_scale(importer: Importer, operator: TfliteOperator, x: TfliteTensor) -> None:
    """Refuse an operator that would have to change the scale of its operand, which TFLite's does not do.

    Raises:
        UnsupportedOperatorError: Operand and result have different scales.
    """
    out = operator.output
    if (x.scale, x.zero_point) != (out.scale, out.zero_point):
        raise importer.refuse(operator, "its operand and its result have different scales")


def axes_of(operator: TfliteOperator, rank: int) -> list[int]:
    """The axes of a reduction, none negative, in order."""
    return sorted({axis % rank for axis in operator.integers(1)})


@integer("MEAN", "SUM")
def _mean(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
    x, out = operator.operand(0), operator.output
    axes = axes_of(operator, len(x.shape))
    count = int(np.prod([x.shape[axis] for axis in axes]))
    if count * (255 if x.dtype == "int8" else 1 << 15) > INT32_MAX:
        return importer.in_float(operator)
    record = rescaling(x, out, x.scale / out.scale)
    if operator.kind == "MEAN":
        record["multiplier"], record["shift"] = ops.mean_multiplier(record["multiplier"], record["shift"], count)
    return ops.qmean(importer.value(x), axes=axes, keepdims=bool(operator.option("KeepDims", False)), **record)


@integer("AVERAGE_POOL_2D", "MAX_POOL_2D")
def _pool(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out, options = operator.operand(0), operator.output, operator.options
    same_scale(importer, operator, x)
    kernel = (options.FilterHeight(), options.FilterWidth())
    strides = (options.StrideH(), options.StrideW())
    before, after = padding(operator, x.shape[1:3], out.shape[1:3], kernel, strides)
    pool = ops.qavgpool if operator.kind == "AVERAGE_POOL_2D" else ops.qmaxpool
    limits = clip(importer, operator)
    return pool(importer.value(x), pool_size=kernel, strides=strides, padding=[*before, *after], **limits)


@integer("SOFTMAX")
def _softmax(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
    x, out = operator.operand(0), operator.output
    beta, depth = float(operator.option("Beta", 1.0)), x.shape[-1]
    stem = out.name
    if x.dtype == out.dtype == "int8" and depth <= MAX_ELEMENTS:
        if (out.scale, out.zero_point) != (OUTPUT_SCALE, OUTPUT_ZERO_POINT):
            raise importer.refuse(operator, f"its result has the scale {out.scale:.3g}, not 1/256")
        table = ops.exponentials(x.scale, beta)
        return ops.qsoftmax(importer.value(x), importer.param(f"{stem}.exponentials", table))
    if x.dtype == out.dtype == "int16" and depth <= WIDE_MAX_ELEMENTS:
        if (out.scale, out.zero_point) != (WIDE_OUTPUT_SCALE, 0):
            raise importer.refuse(operator, f"its result has the scale {out.scale:.3g}, not 1/32768")
        multiplier, shift = ops.softmax_factor(x.scale * beta)
        tables = [
            importer.param(f"{stem}.{name}", table)
            for name, table in zip(("exponentials", "reciprocals"), ops.softmax_tables())
        ]
        return ops.wsoftmax(importer.value(x), *tables, multiplier=multiplier, shift=shift)
    return importer.in_float(operator)


@integer("CONCATENATION")
def _concatenation(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    out = operator.output
    tensors = [operator.operand(index) for index in range(len(operator.inputs))]
    pairs = [
        ops.IDENTITY if (t.scale, t.zero_point) == (out.scale, out.zero_point) else quantize_multiplier(t.scale / out.scale)
        for t in tensors
    ]
    smallest, largest = out.limits
    return ops.qconcat(
        [importer.value(t) for t in tensors],
        axis=operator.option("Axis", 0) % len(out.shape),
        input_zero_points=[t.zero_point for t in tensors],
        multipliers=[q for q, _ in pairs],
        shifts=[s for _, s in pairs],
        output_zero_point=out.zero_point,
        qmin=smallest,
        qmax=largest,
        out_dtype=out.dtype,
    )


@integer("RESIZE_BILINEAR")
def _resize_bilinear(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out = operator.operand(0), operator.output
    same_scale(importer, operator, x)
    align, half = bool(operator.option("AlignCorners", False)), bool(operator.option("HalfPixelCenters", False))
    (rows, row_weights), (columns, column_weights) = (
        _line(size, length, align, half) for size, length in zip(x.shape[1:3], out.shape[1:3])
    )
    weights: dict[str, Any] = {"row_weights": row_weights, "column_weights": column_weights}
    return ops.qresize(importer.value(x), rows=rows, columns=columns, **weights)


def _line(size: int, length: int, align: bool, half: bool) -> tuple[list[int], list[int]]:
    """The first of two neighbours and the weight of the second, in 1/1024, for every result of an axis."""
    scale = (1024 * size + length // 2) // length
    if align and length > 1:
        scale = (1024 * (size - 1) + (length - 1) // 2) // (length - 1)
    places = [index * scale + (scale // 2 - 512 if half else 0) for index in range(length)]
    first = [min(max(place, 0) // 1024, size - 1) for place in places]
    return first, [min(max(place - 1024 * start, 0), 1024) for place, start in zip(places, first)]


@integer("RESIZE_NEAREST_NEIGHBOR")
def _resize_nearest(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out = operator.operand(0), operator.output
    same_scale(importer, operator, x)
    rows, columns = (nearest(operator, size, length) for size, length in zip(x.shape[1:3], out.shape[1:3]))
    return ops.qresize(importer.value(x), rows=rows, columns=columns)


def nearest(operator: TfliteOperator, size: int, length: int) -> list[int]:
    """The position of the input that every result of an axis is taken from (`GetNearestNeighbor`)."""
    align, half = bool(operator.option("AlignCorners", False)), bool(operator.option("HalfPixelCenters", False))
    scale = np.float32(size) / np.float32(length)
    if align and length > 1:
        scale = np.float32(size - 1) / np.float32(length - 1)
    places = (np.arange(length, dtype=np.float32) + np.float32(0.5 if half else 0.0)) * scale
    found = np.floor(places + np.float32(0.5)) if align else np.floor(places)
    return [int(place) for place in np.clip(found, 0, size - 1)]


@integer("LOG_SOFTMAX", "L2_NORMALIZATION")
def _normalized(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
    return importer.in_float(operator)
