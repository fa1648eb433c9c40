"""Integer addition on x86.

The operator `tvmcompress.x86_qadd` computes what `qadd` computes under double rounding. Everything that its rounding
shifts see is known to be small, so that they take the short form of `requantize`:

- An input is (x - zero point) * 2**20, below 2**28, times a factor of at most 1.
- The sum of two of them is below 2**29, times a factor below 1.
"""

from __future__ import annotations

from typing import Any

from ....passes._tvm import relax, te, tirx
from ....passes.integer.registry import make_call, register_operator
from ....passes.integer.requantize import te_saturate
from .requantize import te_multiply_small

_INPUTS = ("input1", "input2")


def adds_simply(call: relax.Call) -> bool:
    """Whether the short form is exact for a `qadd`."""
    attrs = call.attrs
    shifts = [int(attrs[f"{name}_shift"]) for name in (*_INPUTS, "output")]
    same_shape = list(call.args[0].ty.shape) == list(call.args[1].ty.shape)
    return str(attrs.rounding) == "double" and int(attrs.left_shift) <= 20 and max(shifts) <= 0 and same_shape


def x86_qadd(call: relax.Call, a: relax.Expr, b: relax.Expr) -> relax.Call:
    """The operator that stands for a `qadd` which `adds_simply`.

    Args:
        call: The `qadd`.
        a: Its first argument in the new function.
        b: Its second argument in the new function.
    """
    return make_call(_ADD, [a, b], **dict(call.attrs.items()))


def _define(call: relax.Call, a: Any, b: Any) -> Any:
    attrs = call.attrs

    def widened(tensor: Any, name: str) -> Any:
        zero, left = int(attrs[f"{name}_zero_point"]), int(attrs.left_shift)

        def element(*i: Any) -> Any:
            value = tensor(*i).astype("int32") - tirx.const(zero, "int32")
            return tirx.shift_left(value, tirx.const(left, "int32"))

        return te.compute(tensor.shape, element, name=f"{name}_widened")

    def scaled(tensor: Any, name: str) -> Any:
        multiplier, shift = int(attrs[f"{name}_multiplier"]), int(attrs[f"{name}_shift"])
        return te.compute(tensor.shape, lambda *i: te_multiply_small(tensor(*i), multiplier, -shift), name=f"{name}_scaled")

    first, second = (scaled(widened(tensor, name), name) for tensor, name in zip((a, b), _INPUTS))
    total = te.compute(first.shape, lambda *i: first(*i) + second(*i), name="sum")

    def result(*i: Any) -> Any:
        value = te_multiply_small(total(*i), int(attrs.output_multiplier), -int(attrs.output_shift))
        return te_saturate(value, attrs)

    return te.compute(first.shape, result, name="requantized")


def _infer(call: relax.Call) -> relax.TensorType:
    return call.args[0].ty


_ADD = register_operator("x86_qadd", 2, "Integer sum of two scales, short rounding for x86", _infer, _define)
