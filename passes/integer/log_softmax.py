"""Integer logarithm of the softmax: x - max(x) - log(sum(exp(x - max(x)))).

The sum of exponentials is that of `softmax`. Its logarithm is that of a power of two and of a mantissa in [1, 2), which
is interpolated in a table; everything is added up with 20 fraction bits.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .registry import check_tensor, dtype_of, register_operator, tensor_type
from .requantization import ScalarRequantization, requantized_call
from .requantize import requantized, te_requantized
from .softmax import MAX_ELEMENTS, exponential_sum, sum_bits, te_sum

FRACTION_BITS = 20
_LOG_TWO = round(np.log(2.0) * 2**FRACTION_BITS)
# Bits of the mantissa that choose an entry of the table, and those that interpolate.
_INDEX_BITS, _REST_BITS = 8, 23
# log(1 + i / 256) for i = 0, ..., 256.
LOGARITHMS = np.rint(np.log1p(np.arange(257) / 256.0) * 2**FRACTION_BITS).astype(np.int32)
# Differences beyond this are cut off; no sum then leaves 32 bits.
_LARGEST_DIFFERENCE = 1 << 30


def qlogsoftmax(
    x: relax.Expr,
    exponentials: relax.Expr,
    differences: relax.Expr,
    logarithms: relax.Expr,
    **requantization: Unpack[ScalarRequantization],
) -> relax.Call:
    """Logarithm of the softmax over the last axis.

    Args:
        x: int8 (..., K), K at most `softmax.MAX_ELEMENTS`.
        exponentials: int32 (256,): `exponentials` of x's scale.
        differences: int32 (256,): `differences` of x's scale.
        logarithms: int32 (257,): `LOGARITHMS`.
        requantization: By 2**-20 / output scale.

    Returns:
        A call of type int8, the shape of x.
    """
    return requantized_call("logsoftmax", [x, exponentials, differences, logarithms], requantization)


def differences(scale: float) -> np.ndarray:
    """scale * d for d = 0, ..., 255, with 20 fraction bits, int32 (256,)."""
    exact = np.arange(256) * float(scale) * 2.0**FRACTION_BITS
    return np.rint(np.minimum(exact, _LARGEST_DIFFERENCE)).astype(np.int32)


def log_softmax(
    x: np.ndarray, exponentials: np.ndarray, differences: np.ndarray, logarithms: np.ndarray, attrs: Any
) -> np.ndarray:
    """The reference of `qlogsoftmax` in NumPy."""
    largest, _, total = exponential_sum(x, exponentials)
    power = np.floor(np.log2(total)).astype(np.int64)
    mantissa = total << (31 - power)
    index = (mantissa >> _REST_BITS) & ((1 << _INDEX_BITS) - 1)
    rest = mantissa & ((1 << _REST_BITS) - 1)
    low = logarithms.astype(np.int64)[index]
    step = ((logarithms.astype(np.int64)[index + 1] - low) * rest + (1 << (_REST_BITS - 1))) >> _REST_BITS
    logarithm = (power + sum_bits(x.shape[-1]) - 31) * _LOG_TWO + low + step
    return requantized(-(differences.astype(np.int64)[largest - x] + logarithm), attrs)


def _infer(call: relax.Call) -> relax.TensorType:
    shape = static_shape(call.args[0])
    if dtype_of(call.args[0]) != "int8" or not shape:
        raise ValueError(f"qlogsoftmax: the input must be an int8 tensor, got {call.args[0].ty}")
    if shape[-1] > MAX_ELEMENTS:
        raise ValueError(f"qlogsoftmax: at most {MAX_ELEMENTS} elements can be summed, got {shape[-1]}")
    for role, arg, size in zip(("exponentials", "differences", "logarithms"), call.args[1:], (256, 256, 257)):
        check_tensor("qlogsoftmax", f"the table of {role}", arg, ("int32",), (size,))
    return tensor_type(shape, "int8")


def _define(call: relax.Call, x: Any, exponentials: Any, differences: Any, logarithms: Any) -> Any:
    attrs, shape = call.attrs, static_shape(call.args[0])
    rows = (*shape[:-1], 1)
    summed = te_sum(shape, x, exponentials)
    bits = sum_bits(shape[-1])
    # Without the first one, in 31 bits.
    mantissa = te.compute(
        rows,
        lambda *i: (
            tirx.shift_left(summed.total(*i).astype("int64"), summed.leading(*i).astype("int64")) - tirx.const(1 << 31, "int64")
        ).astype("int32"),
        name="mantissa",
    )

    def logarithm(*i: Any) -> Any:
        index = tirx.shift_right(mantissa(*i), tirx.const(_REST_BITS, "int32"))
        rest = tirx.bitwise_and(mantissa(*i), tirx.const((1 << _REST_BITS) - 1, "int32"))
        low, high = logarithms[index], logarithms[index + tirx.const(1, "int32")]
        product = (high - low).astype("int64") * rest.astype("int64") + tirx.const(1 << (_REST_BITS - 1), "int64")
        step = tirx.shift_right(product, tirx.const(_REST_BITS, "int64")).astype("int32")
        return (tirx.const(bits, "int32") - summed.leading(*i)) * tirx.const(_LOG_TWO, "int32") + low + step

    log = te.compute(rows, logarithm, name="logarithm")

    def total(*i: Any) -> Any:
        row = (*i[:-1], 0)
        return -(differences[summed.largest(*row) - x(*i).astype("int32")] + log(*row))

    return te_requantized(te.compute(shape, total, name="negated"), attrs)


register_operator("qlogsoftmax", 4, "Integer logarithm of the softmax", _infer, _define)
