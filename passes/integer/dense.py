"""Integer matrix product with constant weights."""

from __future__ import annotations

from typing import Any, Unpack

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .conv import accumulator_dtype, check_channels, layer_call, te_epilogue
from .registry import activation_dtypes, check_tensor, register_typed, result_dtype, tensor_type
from .requantization import LayerRequantization


def qdense(
    x: relax.Expr,
    weight: relax.Expr,
    bias: relax.Expr,
    multiplier: relax.Expr,
    shift: relax.Expr,
    *,
    input_zero_point: int,
    **requantization: Unpack[LayerRequantization],
) -> relax.Call:
    """Fully connected layer: requantize(bias + (x - input_zero_point) @ weight.T).

    Args:
        x: int8 (..., K).
        weight: int8 (O, K), TensorFlow Lite's layout, zero point 0.
        bias: int32 (O,).
        multiplier: int32 (O,).
        shift: int32 (O,).
        input_zero_point: Of x.
        requantization: From input scale * weight scale.

    Returns:
        A call of type int8 (..., O).
    """
    return layer_call("dense", [x, weight, bias, multiplier, shift], requantization, input_zero_point)


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
