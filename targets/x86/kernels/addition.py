"""Integer addition on x86.

The operator `tvmcompress.x86_qadd` computes what `qadd` computes under double rounding. Everything that its rounding
shifts see is known to be small, so that they take the short form of `requantize`:

- An input is (x - zero point) * 2**20, below 2**28, times a factor of at most 1.
- The sum of two of them is below 2**29, times a factor below 1.

Where `linear_sum` knows a form without any of these roundings that gives the same for all inputs, that is computed.
"""

from __future__ import annotations

from typing import Any

from ....passes._tvm import relax, te, tirx
from ....passes.integer.registry import make_call, register_operator
from ....passes.integer.requantize import te_saturate
from .linear_sum import Factor, LinearForm, Sum, linear_form
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


def form_of(attrs: Any) -> LinearForm | None:
    """The linear form of a `qadd` which `adds_simply`, by its attributes."""
    first, second, output = (Factor(int(attrs[f"{n}_multiplier"]), int(attrs[f"{n}_shift"])) for n in (*_INPUTS, "output"))
    zero1, zero2, zero = (int(attrs[f"{name}_zero_point"]) for name in (*_INPUTS, "output"))
    what = Sum(first, second, output, zero1, zero2, zero, int(attrs.left_shift))
    return linear_form(what, int(attrs.qmin), int(attrs.qmax))


def _define(call: relax.Call, a: Any, b: Any) -> Any:
    form = form_of(call.attrs)
    return _define_in_steps(call, a, b) if form is None else _define_form(call, a, b, form)


def _define_form(call: relax.Call, a: Any, b: Any, form: LinearForm) -> Any:
    low, high = (tirx.const(int(call.attrs[name]), "int32") for name in ("qmin", "qmax"))

    def result(*i: Any) -> Any:
        first = a(*i).astype("int32") * tirx.const(form.first, "int32")
        second = b(*i).astype("int32") * tirx.const(form.second, "int32")
        total = first + second + tirx.const(form.offset, "int32")
        shifted = tirx.shift_right(total, tirx.const(form.shift, "int32"))
        return tirx.max(tirx.min(shifted, high), low).astype("int8")

    return te.compute(a.shape, result, name="sum")


def _define_in_steps(call: relax.Call, a: Any, b: Any) -> Any:
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
