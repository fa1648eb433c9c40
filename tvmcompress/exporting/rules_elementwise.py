"""Operators on every element by itself, and between quantized and real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..passes._tvm import relax
from .writer import WIDE_OPSET, CannotWriteError, Writer, dtype_of, number, onnx_rule

_SAME_WORDS = """
sigmoid tanh exp log sqrt erf abs floor ceil round sign sin cos add less greater equal where tan acos asin atan acosh asinh
atanh bitwise_and bitwise_or bitwise_xor bitwise_not
"""
_SAME = {
    **{name: name.title().replace("_", "") for name in _SAME_WORDS.split()},
    **{"nn.relu": "Relu", "nn.selu": "Selu", "isnan": "IsNaN", "isinf": "IsInf", "negative": "Neg", "power": "Pow"},
    **{"subtract": "Sub", "multiply": "Mul", "divide": "Div", "maximum": "Max", "minimum": "Min", "logical_not": "Not"},
    **{"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"},
    **{"less_equal": "LessOrEqual", "greater_equal": "GreaterOrEqual"},
}


@onnx_rule(*_SAME)
def _same(write: Writer, call: relax.Call) -> str:
    return write.emit(_SAME[call.op.name.removeprefix("relax.")], [write.tensor(arg) for arg in call.args])


def _scalar(write: Writer, call: relax.Call, value: float) -> str:
    return write.constant(np.asarray(value, dtype_of(call.args[0])))


@onnx_rule("not_equal")
def _not_equal(write: Writer, call: relax.Call) -> str:
    return write.emit("Not", [write.emit("Equal", [write.tensor(arg) for arg in call.args])])


@onnx_rule("isfinite")
def _isfinite(write: Writer, call: relax.Call) -> str:
    x = write.tensor(call.args[0])
    return write.emit("Not", [write.emit("Or", [write.emit("IsNaN", [x]), write.emit("IsInf", [x])])])


@onnx_rule("floor_divide")
def _floor_divide(write: Writer, call: relax.Call) -> str:
    if not np.issubdtype(dtype_of(call), np.floating):
        raise CannotWriteError("it divides integers, and ONNX rounds their quotients towards zero")
    return write.emit("Floor", [write.emit("Div", [write.tensor(arg) for arg in call.args])])


@onnx_rule("mod", "floor_mod")
def _mod(write: Writer, call: relax.Call) -> str:
    operands = [write.tensor(arg) for arg in call.args]
    if call.op.name == "relax.mod":
        return write.emit("Mod", operands, fmod=1)
    if not np.issubdtype(dtype_of(call), np.floating):
        return write.emit("Mod", operands)
    # ONNX has the remainder with the dividend's sign for floats; one of the other sign is a divisor away.
    rest = write.emit("Mod", operands, fmod=1)
    away = write.emit("Less", [write.emit("Mul", [rest, operands[1]]), _scalar(write, call, 0)])
    return write.emit("Where", [away, write.emit("Add", [rest, operands[1]]), rest])


@onnx_rule("left_shift", "right_shift")
def _shift(write: Writer, call: relax.Call) -> str:
    if not np.issubdtype(dtype_of(call), np.unsignedinteger):
        raise CannotWriteError("it shifts integers with a sign")
    direction = call.op.name.removeprefix("relax.").removesuffix("_shift").upper()
    return write.emit("BitShift", [write.tensor(arg) for arg in call.args], direction=direction)


@onnx_rule("trunc")
def _trunc(write: Writer, call: relax.Call) -> str:
    x = write.tensor(call.args[0])
    return write.emit("Mul", [write.emit("Floor", [write.emit("Abs", [x])]), write.emit("Sign", [x])])


@onnx_rule("square")
def _square(write: Writer, call: relax.Call) -> str:
    x = write.tensor(call.args[0])
    return write.emit("Mul", [x, x])


@onnx_rule("rsqrt")
def _rsqrt(write: Writer, call: relax.Call) -> str:
    return write.emit("Reciprocal", [write.emit("Sqrt", [write.tensor(call.args[0])])])


@onnx_rule("clip")
def _clip(write: Writer, call: relax.Call) -> str:
    limits = [_scalar(write, call, number(arg)) for arg in call.args[1:]]
    return write.emit("Clip", [write.tensor(call.args[0]), *limits])


@onnx_rule("nn.silu")
def _silu(write: Writer, call: relax.Call) -> str:
    x = write.tensor(call.args[0])
    return write.emit("Mul", [x, write.emit("Sigmoid", [x])])


@onnx_rule("nn.gelu")
def _gelu(write: Writer, call: relax.Call) -> str:
    x = write.tensor(call.args[0])
    scaled = write.emit("Mul", [x, _scalar(write, call, np.sqrt(0.5))])
    sum_ = write.emit("Add", [write.emit("Erf", [scaled]), _scalar(write, call, 1)])
    return write.emit("Mul", [write.emit("Mul", [x, _scalar(write, call, 0.5)]), sum_])


@onnx_rule("nn.gelu_tanh")
def _gelu_tanh(write: Writer, call: relax.Call) -> str:
    x = write.tensor(call.args[0])
    cube = write.emit("Mul", [write.emit("Mul", [x, x]), x])
    inner = write.emit("Add", [x, write.emit("Mul", [cube, _scalar(write, call, 0.044715)])])
    raised = write.emit("Tanh", [write.emit("Mul", [inner, _scalar(write, call, np.sqrt(2 / np.pi))])])
    sum_ = write.emit("Add", [raised, _scalar(write, call, 1)])
    return write.emit("Mul", [write.emit("Mul", [x, _scalar(write, call, 0.5)]), sum_])


@onnx_rule("nn.leakyrelu")
def _leaky_relu(write: Writer, call: relax.Call) -> str:
    return write.emit("LeakyRelu", [write.tensor(call.args[0])], alpha=float(call.attrs.alpha))


@onnx_rule("nn.prelu")
def _prelu(write: Writer, call: relax.Call) -> str:
    slope = write.value(call.args[1])
    if slope is None:
        raise CannotWriteError("its slope is not constant")
    rank = len(call.args[0].ty.shape)
    behind = rank - 1 - int(call.attrs.axis) % rank
    name = write.constant(slope.reshape((-1,) + (1,) * behind), getattr(call.args[1], "name", None))
    return write.emit("PRelu", [write.tensor(call.args[0]), name])


@onnx_rule("nn.softplus")
def _softplus(write: Writer, call: relax.Call) -> str:
    beta = float(call.attrs.beta)
    if beta == 1.0:
        return write.emit("Softplus", [write.tensor(call.args[0])])
    factor = _scalar(write, call, beta)
    return write.emit("Div", [write.emit("Softplus", [write.emit("Mul", [write.tensor(call.args[0]), factor])]), factor])


@onnx_rule("astype")
def _astype(write: Writer, call: relax.Call) -> str:
    from onnx import helper

    return write.emit("Cast", [write.tensor(call.args[0])], to=helper.np_dtype_to_tensor_dtype(dtype_of(call)))


@onnx_rule("zeros_like", "ones_like")
def _filled(write: Writer, call: relax.Call) -> str:
    fill = 0 if call.op.name.startswith("relax.zeros") else 1
    return write.constant(np.full([int(dim) for dim in call.ty.shape], fill, dtype_of(call)))


@onnx_rule("nn.dropout")
def _dropout(write: Writer, call: relax.Call) -> list[str]:
    x = write.tensor(call.args[0])
    return [x, x]


@onnx_rule("quantize", "dequantize")
def _affine(write: Writer, call: relax.Call) -> str:
    scale, zero = write.value(call.args[1]), write.value(call.args[2])
    if scale is None or zero is None:
        raise CannotWriteError("its scale or zero point is not constant")
    integers = call if call.op.name == "relax.quantize" else call.args[0]
    if dtype_of(integers) not in (np.int8, np.uint8, np.int16):
        raise CannotWriteError(f"ONNX opset {WIDE_OPSET} does not quantize to {dtype_of(integers)}")
    x = write.tensor(call.args[0])
    stem = x.removesuffix(".quantized")
    operands = [
        write.constant(value.reshape(-1) if value.size > 1 else value.reshape(()), f"{stem}.{what}")
        for value, what in ((scale, "scale"), (zero, "zero_point"))
    ]
    options: dict[str, Any] = {"axis": int(call.attrs.axis)} if scale.size > 1 else {}
    return write.emit("QuantizeLinear" if integers is call else "DequantizeLinear", [x, *operands], **options)
