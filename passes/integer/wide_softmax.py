"""Softmax of int16: TensorFlow Lite's 16-bit arithmetic, two functions in tables with interpolation.

The exponential of a difference d is that of max(d, -10); a sum of exponentials is scaled to [1, 2), and its reciprocal is
1 / (1 + x) with x in [0, 1) (`SoftmaxInt16` in TensorFlow Lite's reference kernels).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .elementwise import interpolated_table, te_interpolated
from .registry import check_tensor, make_call, register_operator, tensor_type
from .requantize import multiply, quantize_multiplier, te_multiply

# Of every result.
WIDE_OUTPUT_SCALE = 1.0 / 32768.0
# The sum of more exponentials could leave 31 bits.
WIDE_MAX_ELEMENTS = (1 << 16) - 1
_LOWEST = -10.0


def wsoftmax(x: relax.Expr, exponentials: relax.Expr, reciprocals: relax.Expr, *, multiplier: int, shift: int) -> relax.Call:
    """Softmax over the last axis; the result has scale 1/32768 and zero point 0.

    Args:
        x: int16 (..., K), K at most `WIDE_MAX_ELEMENTS`.
        exponentials: int16 (513,), from `softmax_tables`.
        reciprocals: int16 (513,), the same.
        multiplier: From `softmax_factor`.
        shift: The same.

    Returns:
        A call of type int16, the shape of x.
    """
    return make_call(_SOFTMAX, [x, exponentials, reciprocals], multiplier=multiplier, shift=shift)


def softmax_tables() -> tuple[np.ndarray, np.ndarray]:
    """exp on [-10, 0] and 1 / (1 + x) on [0, 1], int16 (513,) each, with 15 bits behind the point."""
    places = np.linspace(0.0, 1.0, 1025)
    found = [interpolated_table(values, WIDE_OUTPUT_SCALE) for values in (np.exp(_LOWEST * (1 - places)), 1 / (1 + places))]
    return found[0], found[1]


def softmax_factor(scale: float) -> tuple[int, int]:
    """(multiplier, shift) that bring differences of the input to 65535 steps of [-10, 0].

    Raises:
        ValueError: The scale is out of range.
    """
    return quantize_multiplier(float(scale) / (-_LOWEST / 65535.0))


def wide_softmax(x: np.ndarray, exponentials: np.ndarray, reciprocals: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """What `wsoftmax` means, in NumPy."""
    wide = x.astype(np.int64)
    scaled = multiply(wide - wide.max(-1, keepdims=True), multiplier, shift, "double") + 32767
    exps = _interpolated(np.clip(scaled, -32768, 32767), exponentials)
    total = exps.sum(-1, keepdims=True)
    leading = 31 - np.floor(np.log2(total)).astype(np.int64)
    shifted = ((total << (leading - 1)) + (1 << 13)) >> 14
    factor = _interpolated(np.clip(shifted - (32768 + 65536), -32768, 32767), reciprocals)
    down = 31 - leading
    return np.clip((exps * factor + (1 << (down - 1))) >> down, 0, 32767).astype(np.int16)


def _interpolated(value: np.ndarray, table: np.ndarray) -> np.ndarray:
    entries = table.astype(np.int64)
    place = (value >> 7) + 256
    return entries[place] + (((entries[place + 1] - entries[place]) * (value & 127) + 64) >> 7)


def _infer(call: relax.Call) -> relax.TensorType:
    shape = static_shape(call.args[0])
    check_tensor("wsoftmax", "the input", call.args[0], ("int16",), (None,) * len(shape))
    for table in call.args[1:]:
        check_tensor("wsoftmax", "a table", table, ("int16",), (513,))
    if not shape or shape[-1] > WIDE_MAX_ELEMENTS:
        raise ValueError(f"wsoftmax: shape {shape} has no last axis of at most {WIDE_MAX_ELEMENTS} elements")
    return tensor_type(shape, "int16")


def _define(call: relax.Call, x: Any, exponentials: Any, reciprocals: Any) -> Any:
    shape = static_shape(call.args[0])
    rows, size = shape[:-1], shape[-1]
    multiplier, shift = int(call.attrs.multiplier), int(call.attrs.shift)
    along, again = te.reduce_axis((0, size), "k"), te.reduce_axis((0, size), "k")
    largest = te.compute((*rows, 1), lambda *i: te.max(x(*i[:-1], along), axis=along), name="largest")
    differences = te.compute(shape, lambda *i: x(*i).astype("int32") - largest(*i[:-1], 0).astype("int32"), name="differences")

    def exponential(*i: Any) -> Any:
        scaled = te_multiply(differences(*i), multiplier, shift, "double", shift) + 32767
        return te_interpolated(_int16(scaled), exponentials)

    exps = te.compute(shape, exponential, name="exps")
    total = te.compute((*rows, 1), lambda *i: te.sum(exps(*i[:-1], again), axis=again), name="total")

    def leading_zeros(*i: Any) -> Any:
        count = tirx.const(31, "int32")
        for bit in range(1, 31):
            count = count - (total(*i) >= tirx.const(1 << bit, "int32")).astype("int32")
        return count

    leading = te.compute((*rows, 1), leading_zeros, name="leading")

    def reciprocal(*i: Any) -> Any:
        moved = tirx.shift_left(total(*i).astype("int64"), (leading(*i) - 1).astype("int64"))
        shifted = tirx.shift_right(moved + tirx.const(1 << 13, "int64"), tirx.const(14, "int64")).astype("int32")
        return te_interpolated(_int16(shifted - (32768 + 65536)), reciprocals)

    factor = te.compute((*rows, 1), reciprocal, name="factor")

    def probability(*i: Any) -> Any:
        row = (*i[:-1], 0)
        down = (tirx.const(31, "int32") - leading(*row)).astype("int64")
        half = tirx.shift_left(tirx.const(1, "int64"), down - tirx.const(1, "int64"))
        value = tirx.shift_right(exps(*i).astype("int64") * factor(*row).astype("int64") + half, down)
        zero, limit = tirx.const(0, "int64"), tirx.const(32767, "int64")
        return tirx.max(tirx.min(value, limit), zero).astype("int16")

    return te.compute(shape, probability, name="probability")


def _int16(value: Any) -> Any:
    """A value limited to the range of int16, still int32."""
    return tirx.max(tirx.min(value, tirx.const(32767, "int32")), tirx.const(-32768, "int32"))


_SOFTMAX = register_operator("wsoftmax", 3, "Integer softmax of int16", _infer, _define)
