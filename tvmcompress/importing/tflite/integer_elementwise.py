"""Quantized element-wise TFLite operators as our integer operators: sums, products, rectifiers, changes of scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...passes._tvm import relax, tvm
from ...passes.integer import ops
from .file import TfliteOperator, TfliteTensor
from .geometry import clip, clip_to, one_factor, rescaling
from .importer import Importer, dequantized, identifier, integer, plain, quantized, real_values

# Where squares of differences are added up, operands are shifted up by fewer bits than in a sum.
_SQUARE_LEFT_SHIFT = 7


def float_ratio(*scales: float) -> float:
    """The first scales' product divided by the last one, in the float32 in which TFLite computes it here."""
    product = np.float32(scales[0])
    for scale in scales[1:-1]:
        product = product * np.float32(scale)
    return float(product / np.float32(scales[-1]))


def _pair(operator: TfliteOperator) -> tuple[TfliteTensor, TfliteTensor, TfliteTensor]:
    return operator.operand(0), operator.operand(1), operator.output


def _zero_points(a: TfliteTensor, b: TfliteTensor, out: TfliteTensor) -> dict[str, Any]:
    return {
        "input1_zero_point": a.zero_point,
        "input2_zero_point": b.zero_point,
        "output_zero_point": out.zero_point,
        "out_dtype": out.dtype,
    }


@integer("ADD", "SUB")
def _sum(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    a, b, out = _pair(operator)
    wide = out.dtype == "int16"
    if wide and operator.option("PotScaleInt16", True) and all(np.frexp(t.scale)[0] == 0.5 for t in (a, b, out)):
        raise importer.refuse(operator, "16-bit sums of scales that are powers of two are not supported")
    left_shift = ops.WIDE_LEFT_SHIFT if wide else ops.ADD_LEFT_SHIFT
    make = ops.qadd if operator.kind == "ADD" else ops.qsub
    factors: dict[str, Any] = dict(ops.add_parameters(a.scale, b.scale, out.scale, left_shift=left_shift))
    return make(importer.value(a), importer.value(b), **_zero_points(a, b, out), **factors, **clip(importer, operator))


@integer("MUL")
def _product(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    a, b, out = _pair(operator)
    factor = one_factor(float_ratio(a.scale, b.scale, out.scale))
    return ops.qmul(importer.value(a), importer.value(b), **factor, **_zero_points(a, b, out), **clip(importer, operator))


@integer("SQUARED_DIFFERENCE")
def _squared_difference(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
    a, b, out = _pair(operator)
    if out.dtype != "int8":
        return importer.in_float(operator)
    twice = float(np.float32(2.0) * max(np.float32(a.scale), np.float32(b.scale)))
    factors = ops.add_parameters(a.scale, b.scale, out.scale)
    factors["output_multiplier"], factors["output_shift"] = ops.IDENTITY
    raw = ops.qsub(
        importer.value(a),
        importer.value(b),
        **{**_zero_points(a, b, out), "output_zero_point": 0, "out_dtype": "int16", "qmin": -32768, "qmax": 32767},
        **factors,
    )
    attrs = {key: raw.attrs[key] for key in list(raw.attrs.keys())} | {"left_shift": _SQUARE_LEFT_SHIFT}
    call = relax.Call(raw.op, raw.args, tvm.ir.make_node("ir.DictAttrs", **attrs))
    difference = importer.emit(call, f"{identifier(out.name)}.difference")
    factor = twice * twice / float(np.float32(out.scale) * np.float32(1 << 2 * _SQUARE_LEFT_SHIFT))
    zero_points = {**_zero_points(a, b, out), "input1_zero_point": 0, "input2_zero_point": 0}
    return ops.qmul(difference, difference, **one_factor(factor), **zero_points)


@integer("DIV")
def _quotient(importer: Importer, operator: TfliteOperator) -> relax.Expr | list[relax.Expr]:
    return importer.in_float(operator)


@integer("MAXIMUM", "MINIMUM")
def _extreme(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    """TFLite compares the integers, so operands and result must be of one scale."""
    a, b, out = _pair(operator)
    if any((t.scale, t.zero_point) != (out.scale, out.zero_point) for t in (a, b)):
        raise importer.refuse(operator, "its operands and its result have different scales")
    make = relax.op.maximum if operator.kind == "MAXIMUM" else relax.op.minimum
    return make(importer.value(a), importer.value(b))


def _rectifier(low: float, high: float | None) -> Callable[[Importer, TfliteOperator], relax.Expr]:
    def convert(importer: Importer, operator: TfliteOperator) -> relax.Expr:
        x, out = operator.operand(0), operator.output
        return ops.qrequantize(importer.value(x), **rescaling(x, out, float_ratio(x.scale, out.scale), clip_to(out, low, high)))

    return convert


integer("RELU")(_rectifier(0.0, None))
integer("RELU6")(_rectifier(0.0, 6.0))
integer("RELU_N1_TO_1")(_rectifier(-1.0, 1.0))
integer("RELU_0_TO_1")(_rectifier(0.0, 1.0))


@integer("PRELU")
def _prelu(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, slope, out = _pair(operator)
    factor, below = float_ratio(x.scale, out.scale), one_factor(float_ratio(x.scale, slope.scale, out.scale))
    if out.dtype == "int16":
        above, part = _parts(importer, operator)
        sloped = ops.qmul(part, importer.value(slope), **below, qmin=-32768, qmax=32767, **_zero_points(x, slope, out))
        return _joined(importer, operator, ops.qrequantize(above, **rescaling(x, out, factor)), sloped)
    return ops.qprelu(
        importer.value(x),
        importer.value(slope),
        input_zero_point=x.zero_point,
        slope_zero_point=slope.zero_point,
        output_zero_point=out.zero_point,
        **one_factor(factor),
        **{f"negative_{name}": value for name, value in below.items()},
    )


def bent(importer: Importer, operator: TfliteOperator, slope: float) -> relax.Expr:
    """A rectifier of int16 whose negative side has a slope: each side, zero where the other is not, onto the output's scale.

    Args:
        importer: The import.
        operator: The operator; the zero points of int16 are 0.
        slope: Of the negative side.
    """
    x, out = operator.operand(0), operator.output
    above, below = _parts(importer, operator)
    # The smallest integer is left out of what is subtracted, since its opposite is none.
    limits = {"qmin": -32767 if slope < 0 else -32768, "qmax": 32767}
    sides = [
        ops.qrequantize(part, **rescaling(x, out, factor, limits))
        for part, factor in ((above, float_ratio(x.scale, out.scale)), (below, float_ratio(x.scale, abs(slope), out.scale)))
    ]
    return _joined(importer, operator, sides[0], sides[1], falling=slope < 0)


def _parts(importer: Importer, operator: TfliteOperator) -> list[relax.Expr]:
    """What is above zero, and what is below."""
    zero, value, stem = relax.const(np.int16(0)), importer.value(operator.operand(0)), identifier(operator.output.name)
    return [importer.emit(make(value, zero), f"{stem}.side") for make in (relax.op.maximum, relax.op.minimum)]


def _joined(
    importer: Importer, operator: TfliteOperator, above: relax.Expr, below: relax.Expr, falling: bool = False
) -> relax.Expr:
    stem = identifier(operator.output.name)
    sides = [importer.emit(side, f"{stem}.side") for side in (above, below)]
    return relax.op.subtract(*sides) if falling else relax.op.add(*sides)


@plain("QUANTIZE")
def _quantize(importer: Importer, operator: TfliteOperator) -> relax.Expr:
    x, out = operator.operand(0), operator.output
    if not out.is_quantized or out.scales.size > 1:
        raise importer.refuse(operator, "its result has several scales or none")
    if x.is_float:
        return quantized(importer.value(x), out)
    # Both are computed in float32's quotient of doubles.
    factor = x.scale / out.scale
    if "uint8" not in (x.dtype, out.dtype):
        return ops.qrequantize(importer.value(x), **rescaling(x, out, factor))
    if {x.dtype, out.dtype} != {"uint8", "int8"} or x.scale != out.scale or abs(x.zero_point - out.zero_point) != 128:
        raise importer.refuse(operator, f"{x.dtype} to {out.dtype} with another scale is not supported")
    # The same numbers, 128 further up or down.
    wide = importer.emit(relax.op.astype(importer.value(x), "int16"), f"{identifier(out.name)}.wide")
    moved = relax.op.add(wide, relax.const(np.int16(out.zero_point - x.zero_point)))
    return relax.op.astype(importer.emit(moved, f"{identifier(out.name)}.wide"), out.dtype)


@plain("DEQUANTIZE")
def _dequantize(importer: Importer, operator: TfliteOperator) -> relax.Expr | None:
    x, out = operator.operand(0), operator.output
    if x.data is not None:
        importer.set_constant(operator, real_values(x))
        return None
    if x.is_float:
        return relax.op.astype(importer.value(x), out.dtype)
    if x.scales.size != 1:
        raise importer.refuse(operator, "its operand has several scales or none")
    return dequantized(importer.value(x), x)
