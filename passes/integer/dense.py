"""Integer matrix product with constant weights."""

from __future__ import annotations

from typing import Any

from .._tvm import relax, te, tirx
from ..module_params import static_shape
from .conv import check_channels, te_epilogue
from .registry import check_tensor, make_call, register_operator, tensor_type


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
    return make_call(
        _DENSE,
        [x, weight, bias, multiplier, shift],
        input_zero_point=input_zero_point,
        output_zero_point=output_zero_point,
        qmin=qmin,
        qmax=qmax,
        rounding=rounding,
        max_shift=max_shift,
    )


def _infer(call: relax.Call) -> relax.TensorType:
    shape = static_shape(call.args[0])
    check_tensor("qdense", "the input", call.args[0], ("int8",), (None,) * max(len(shape), 1))
    check_tensor("qdense", "the weight", call.args[1], ("int8",), (None, shape[-1]))
    outputs = static_shape(call.args[1])[0]
    check_channels("qdense", call, outputs)
    return tensor_type((*shape[:-1], outputs), "int8")


def _define(call: relax.Call, x: Any, weight: Any, bias: Any, multiplier: Any, shift: Any) -> Any:
    depth = te.reduce_axis((0, static_shape(call.args[0])[-1]), "k")
    zero = tirx.const(int(call.attrs.input_zero_point), "int32")

    def element(*index: Any) -> Any:
        value = x(*index[:-1], depth).astype("int32") - zero
        return te.sum(value * weight[index[-1], depth].astype("int32"), axis=depth)

    acc = te.compute(_infer(call).shape, element, name="dense")
    return te_epilogue(acc, bias, multiplier, shift, call.attrs)


_DENSE = register_operator("qdense", 5, "Integer fully connected layer with requantization", _infer, _define)
