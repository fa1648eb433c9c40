"""Integer matrix product with constant weights."""

from __future__ import annotations

from typing import Any

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .conv import accumulator_dtype, check_channels, te_epilogue
from .registry import activation_dtypes, check_tensor, register_typed, result_dtype, tensor_type, typed_call


def qdense(
    x: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr,
    multiplier: relax.Expr,
    shift: relax.Expr,
    *,
    input_zero_point: int,
    output_zero_point: int,
    qmin: int = -128,
    qmax: int = 127,
    rounding: str = "double",
    max_shift: int = 30,
    out_dtype: str = "int8",
    **wide: str,
) -> relax.Call:
    """Fully connected layer: requantize(bias + (x - input_zero_point) @ weight.T), clipped to [qmin, qmax].

    Args:
        x: int8 (..., K).
        weight: int8 (O, K), TensorFlow Lite's layout, zero point 0.
        bias: int32 (O,).
        multiplier: int32 (O,).
        shift: int32 (O,).
        input_zero_point: Of x.
        output_zero_point: Of the result.
        qmin: Lower limit of the result.
        qmax: Upper limit.
        rounding: "double" or "single".
        max_shift: No shift is larger.

    Returns:
        A call of type int8 (..., O).
    """
    return typed_call(
        "dense",
        [x, weight, bias, multiplier, shift],
        out_dtype,
        input_zero_point=input_zero_point,
        output_zero_point=output_zero_point,
        qmin=qmin,
        qmax=qmax,
        rounding=rounding,
        max_shift=max_shift,
        **wide,
    )


def _infer(call: relax.Call) -> relax.TensorType:
    shape = static_shape(call.args[0])
    check_tensor("qdense", "the input", call.args[0], activation_dtypes(call), (None,) * max(len(shape), 1))
    check_tensor("qdense", "the weight", call.args[1], ("int8",), (None, shape[-1]))
    outputs = static_shape(call.args[1])[0]
    check_channels("qdense", call, outputs)
    return tensor_type((*shape[:-1], outputs), result_dtype(call.attrs))


def _define(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    depth = te.reduce_axis((0, static_shape(call.args[0])[-1]), "k")
    kind = accumulator_dtype(call.attrs)
    zero = tirx.const(int(call.attrs.input_zero_point), kind)

    def element(*index: Any) -> Any:
        value = x(*index[:-1], depth).astype(kind) - zero
        return te.sum(value * weight[index[-1], depth].astype(kind), axis=depth)

    acc = te.compute(_infer(call).shape, element, name="dense")
    return te_epilogue(acc, bias, multiplier, shift, call.attrs)


register_typed("dense", 5, "Integer fully connected layer with requantization", _infer, _define)
