"""Integer element-wise operators: sums and products of differently scaled tensors, change of scale, tables."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx, tvm
from ..graph.module_params import static_shape
from .registry import (
    activation_dtypes,
    check_tensor,
    dtype_of,
    register_typed,
    result_dtype,
    tensor_type,
    typed_call,
)
from .requantization import Requantization, ScalarRequantization, requantized_call
from .requantize import quantize_multiplier, te_multiply, te_requantize, te_requantized, te_shift_left

# Bits by which the operands of a sum are shifted up before they are brought to one scale, as in TensorFlow Lite.
ADD_LEFT_SHIFT = 20
# Where an operand is int16.
WIDE_LEFT_SHIFT = 15


class SumRequantization(Requantization):
    """How the two operands of a sum and their sum are brought to one scale; `add_parameters` computes the factors."""

    input1_zero_point: int
    input1_multiplier: int
    input1_shift: int
    input2_zero_point: int
    input2_multiplier: int
    input2_shift: int
    output_multiplier: int
    output_shift: int


def qadd(a: relax.Expr, b: relax.Expr, **requantization: Unpack[SumRequantization]) -> relax.Call:
    """Sum of two tensors of different scales, TensorFlow Lite's arithmetic.

    Both operands, less their zero points, are shifted left by 20 bits and multiplied onto the scale 2 * max(scale1,
    scale2); the sum is multiplied onto the output's. `add_parameters` computes the multipliers.

    Args:
        a: int8; shapes broadcast as in NumPy.
        b: int8.
        requantization: Zero points and factors.

    Returns:
        A call of type int8.
    """
    wide = "int16" in (dtype_of(a), dtype_of(b))
    return requantized_call("add", [a, b], requantization, left_shift=WIDE_LEFT_SHIFT if wide else ADD_LEFT_SHIFT)


def qsub(a: relax.Expr, b: relax.Expr, **attrs: Any) -> relax.Call:
    """a - b; arguments as of `qadd`."""
    call = qadd(a, b, **attrs)
    return relax.Call(tvm.ir.Op.get(call.op.name.removesuffix("add") + "sub"), call.args, call.attrs)


def add_parameters(
    scale1: float, scale2: float, output_scale: float, rounding: str = "double", left_shift: int = ADD_LEFT_SHIFT
) -> dict[str, int]:
    """The multipliers and shifts of `qadd` and `qsub` for three scales; with an int16 operand the left shift is
    `WIDE_LEFT_SHIFT`."""
    common = 2.0 * max(float(scale1), float(scale2))
    factors = {
        "input1": float(scale1) / common,
        "input2": float(scale2) / common,
        "output": common / ((1 << left_shift) * float(output_scale)),
    }
    found: dict[str, int] = {}
    for name, factor in factors.items():
        found[f"{name}_multiplier"], found[f"{name}_shift"] = quantize_multiplier(factor, rounding)
    return found


def qmul(
    a: relax.Expr,
    b: relax.Expr,
    *,
    input1_zero_point: int,
    input2_zero_point: int,
    **requantization: Unpack[ScalarRequantization],
) -> relax.Call:
    """Product: requantize((a - input1_zero_point) * (b - input2_zero_point)).

    Args:
        a: int8; shapes broadcast as in NumPy.
        b: int8.
        input1_zero_point: Of a.
        input2_zero_point: Of b.
        requantization: By scale1 * scale2 / output scale.

    Returns:
        A call of type int8.
    """
    zero_points = {"input1_zero_point": input1_zero_point, "input2_zero_point": input2_zero_point}
    return requantized_call("mul", [a, b], requantization, **zero_points)


def qrequantize(x: relax.Expr, *, input_zero_point: int, **requantization: Unpack[ScalarRequantization]) -> relax.Call:
    """Change of scale and zero point, with a clip.

    Args:
        x: int8, any shape.
        input_zero_point: Of x.
        requantization: By input scale / output scale.

    Returns:
        A call of type int8.
    """
    return requantized_call("requantize", [x], requantization, input_zero_point=input_zero_point)


def qlut(x: relax.Expr, table: relax.Expr) -> relax.Call:
    """Any function of one value: table[x + 128] of an int8; of an int16, linear between the entries on both sides.

    That is `LUTLookup` in TensorFlow Lite: with i = 256 + (x >> 7), table[i] + ((x & 127) * (table[i + 1] - table[i]) + 64
    >> 7).

    Args:
        x: int8 or int16, any shape.
        table: int8 or int16, the dtype of the result; (256,) for int8, (513,) for int16, see `interpolated_table`.
    """
    return typed_call("lut", [x, table], dtype_of(table))


def interpolated_table(values: np.ndarray, scale: float) -> np.ndarray:
    """The table of a function for interpolation, int16 (513,), as TensorFlow Lite makes it.

    Every entry is moved by half of the error that interpolation would make in the middle of its interval.

    Args:
        values: The function's real values at the multiples of 64 from -32768 to 32768, (1025,).
        scale: Of the result, whose zero point is 0.
    """
    steps = values.astype(np.float64) / scale
    at, middle = steps[::2], steps[1::2]
    error = _round((at[1:] + _round(at[:-1])) / 2) - _round(middle)
    entries = np.append(_round(at[:-1]) - _round(error / 2), _round(at[-1]))
    return np.clip(entries, -32768, 32767).astype(np.int16)


def _round(x: np.ndarray) -> np.ndarray:
    """Half away from zero."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def broadcast_shape(call: relax.Call) -> tuple[int, ...]:
    """The shape that the two operands of a call broadcast to."""
    shapes = [static_shape(arg) for arg in list(call.args)[:2]]
    try:
        return tuple(int(dim) for dim in np.broadcast_shapes(*shapes))
    except ValueError:
        raise ValueError(f"{call.op.name}: shapes {shapes[0]} and {shapes[1]} do not broadcast") from None


def infer_binary(call: relax.Call) -> relax.TensorType:
    """The type of a call on two int8 operands that broadcast."""
    for arg in list(call.args)[:2]:
        if dtype_of(arg) not in activation_dtypes(call):
            raise ValueError(f"{call.op.name}: operands must be int8, got {dtype_of(arg)}")
    return tensor_type(broadcast_shape(call), result_dtype(call.attrs))


def _infer_unary(call: relax.Call) -> relax.TensorType:
    if dtype_of(call.args[0]) not in activation_dtypes(call):
        raise ValueError(f"{call.op.name}: the input must be int8, got {dtype_of(call.args[0])}")
    return tensor_type(static_shape(call.args[0]), result_dtype(call.attrs))


def _infer_lut(call: relax.Call) -> relax.TensorType:
    size = 513 if dtype_of(call.args[0]) == "int16" else 256
    check_tensor("qlut", "the table", call.args[1], activation_dtypes(call), (size,))
    return _infer_unary(call)


def read(tensor: Any, index: tuple[Any, ...], zero_point: int) -> Any:
    """tensor - zero_point at the broadcast position `index`, as int32."""
    own = index[len(index) - len(tensor.shape) :]
    place = [0 if int(dim) == 1 else i for dim, i in zip(tensor.shape, own)]
    return tensor(*place).astype("int32") - tirx.const(zero_point, "int32")


def _define_sum(sign: int) -> Any:
    def define(call: relax.Call, a: Any, b: Any) -> Any:
        attrs = call.attrs
        rounding = str(attrs.rounding)

        def scaled(tensor: Any, index: tuple[Any, ...], which: str) -> Any:
            multiplier, shift = int(attrs[f"{which}_multiplier"]), int(attrs[f"{which}_shift"])
            value = read(tensor, index, int(attrs[f"{which}_zero_point"]))
            shifted = te_shift_left(value, tirx.const(int(attrs.left_shift), "int32"))
            return te_multiply(shifted, multiplier, shift, rounding, shift).astype("int32")

        def total(*index: Any) -> Any:
            first, second = scaled(a, index, "input1"), scaled(b, index, "input2")
            return first + second if sign > 0 else first - second

        raw = te.compute(broadcast_shape(call), total, name="sum")
        factor = int(attrs.output_multiplier), int(attrs.output_shift)
        return te.compute(raw.shape, lambda *i: te_requantize(raw(*i), attrs, *factor), name="requantized")

    return define


def _define_mul(call: relax.Call, a: Any, b: Any) -> Any:
    attrs = call.attrs
    product = te.compute(
        broadcast_shape(call),
        lambda *i: read(a, i, int(attrs.input1_zero_point)) * read(b, i, int(attrs.input2_zero_point)),
        name="product",
    )
    return te_requantized(product, attrs)


def _define_requantize(call: relax.Call, x: Any) -> Any:
    attrs = call.attrs
    zero = int(attrs.input_zero_point)
    return te.compute(x.shape, lambda *i: te_requantize(read(x, i, zero), attrs), name="requantized")


def _define_lut(call: relax.Call, x: Any, table: Any) -> Any:
    if dtype_of(call.args[0]) == "int8":
        return te.compute(x.shape, lambda *i: table[x(*i).astype("int32") + tirx.const(128, "int32")], name="looked_up")

    return te.compute(x.shape, lambda *i: te_interpolated(x(*i).astype("int32"), table).astype("int16"), name="looked_up")


def te_interpolated(value: Any, table: Any) -> Any:
    """The int32 entry of a table of 513 int16 for an int32 value in the range of int16, interpolated."""
    place = tirx.shift_right(value, tirx.const(7, "int32")) + tirx.const(256, "int32")
    base = table[place].astype("int32")
    slope = table[place + 1].astype("int32") - base
    part = tirx.bitwise_and(value, tirx.const(127, "int32"))
    return base + tirx.shift_right(slope * part + tirx.const(64, "int32"), tirx.const(7, "int32"))


register_typed("add", 2, "Integer sum of two scales", infer_binary, _define_sum(1))
register_typed("sub", 2, "Integer difference of two scales", infer_binary, _define_sum(-1))
register_typed("mul", 2, "Integer product", infer_binary, _define_mul)
register_typed("requantize", 1, "Change of scale", _infer_unary, _define_requantize)
register_typed("lut", 2, "Function of one value by table", _infer_lut, _define_lut)
