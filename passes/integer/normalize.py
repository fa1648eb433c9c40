"""Integer normalization: mean and variance exactly, one integer reciprocal square root a row, a factor and an offset a
channel.

Of K integers x of one row

    d = K * x - sum(x),  V = K * sum(x^2) - sum(x)^2,  y = d / sqrt(V + E),  E = K^2 * epsilon / scale^2

is what layer, group and instance normalization compute: all of it is exact in 32 and 64 bits but for the root and the
rounding of y. Without the sums of x, and with x less its zero point, it is the root mean square normalization. I-BERT
(Kim et al., 2021, section 3.6) takes the root by an iteration for integers on the rounded variance; here the variance
is not rounded, and Newton's iteration works on a normalized mantissa, without any division.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .fixed_point import ROOT_A, ROOT_B, ROOT_STEPS, reciprocal_root
from .registry import check_tensor, dtype_of, register_operator, tensor_type
from .requantization import ScalarRequantization, requantized_call
from .requantize import requantized, te_requantized

# More elements than this in a row, and d could leave 32 bits.
MAX_ELEMENTS = (1 << 31) // 255 - 1
# No factor is larger, so that its product with a normalized value of 16 bits, and the offset, stay in 32 bits.
MAX_FACTOR = (1 << 15) - 1
MAX_OFFSET = (1 << 30) - 1
# Neither is E, so that V + E stays in 62 bits.
_LARGEST_EPSILON = 1 << 60


def qnormalize(
    x: relax.Expr,
    factor: relax.Expr,
    offset: relax.Expr,
    *,
    axes: Sequence[int],
    centred: bool,
    input_zero_point: int,
    epsilon: int,
    **requantization: Unpack[ScalarRequantization],
) -> relax.Call:
    """Normalization over axes: requantize(round(y * 2**F) * factor + offset), F being `fraction_bits` of K.

    Args:
        x: int8, any shape.
        factor: int16, of x's rank, each axis 1 or as long as x's; in [-32767, 32767].
        offset: int32, the shape of `factor`; in [-2**30 + 1, 2**30 - 1].
        axes: What is normalized over; not negative. K is the product of their lengths, at most `MAX_ELEMENTS`.
        centred: Whether the mean is subtracted; otherwise the zero point is, and sum(x) above counts as 0.
        input_zero_point: Of x.
        epsilon: E, see `integer_epsilon`.
        requantization: By the real value of one step of `factor` * 2**-F / output scale; y is rounded half up before.

    Returns:
        A call of type int8, the shape of x.
    """
    options = {"axes": axes, "centred": bool(centred), "input_zero_point": input_zero_point, "epsilon": epsilon}
    return requantized_call("normalize", [x, factor, offset], requantization, **options)


def fraction_bits(count: int) -> int:
    """Fraction bits F of the normalized values: as many as leave them in 16 bits, since |y| is at most sqrt(count)."""
    return 15 - (max(count, 1) - 1).bit_length() // 2 - (max(count, 1) - 1).bit_length() % 2


def integer_epsilon(epsilon: float, scale: float, count: int) -> int:
    """E: what is added to the variance, in units of (scale / count)^2."""
    return round(min(count * count * float(epsilon) / float(scale) ** 2, _LARGEST_EPSILON))


def normalize(x: np.ndarray, factor: np.ndarray, offset: np.ndarray, axes: tuple[int, ...], attrs: Any) -> np.ndarray:
    """The reference of `qnormalize` in NumPy."""
    count = math.prod(x.shape[axis] for axis in axes)
    wide = x.astype(np.int64)
    total: np.ndarray | int = wide.sum(axes, keepdims=True)
    if not attrs.centred:
        wide, total = wide - int(attrs.input_zero_point), 0
    variance = count * np.square(wide).sum(axes, keepdims=True) - np.square(total)
    root, exponent = reciprocal_root(np.maximum(variance + int(attrs.epsilon), 1))
    bits = exponent - fraction_bits(count)
    y = ((count * wide - total) * root + (np.int64(1) << (bits - 1))) >> bits
    return requantized(y * factor.astype(np.int64) + offset, attrs)


def _infer(call: relax.Call) -> relax.TensorType:
    shape, attrs = static_shape(call.args[0]), call.attrs
    if dtype_of(call.args[0]) != "int8":
        raise ValueError(f"qnormalize: the input must be int8, got {dtype_of(call.args[0])}")
    axes = [int(axis) for axis in attrs.axes]
    if not axes or any(not 0 <= axis < len(shape) for axis in axes):
        raise ValueError(f"qnormalize: axes {axes} do not fit shape {shape}")
    if math.prod(shape[axis] for axis in axes) > MAX_ELEMENTS:
        raise ValueError(f"qnormalize: at most {MAX_ELEMENTS} elements can be normalized over")
    found = static_shape(call.args[1])
    if len(found) != len(shape) or any(have not in (1, want) for have, want in zip(found, shape)):
        raise ValueError(f"qnormalize: a factor of shape {found} does not fit {shape}")
    check_tensor("qnormalize", "the factor", call.args[1], ("int16",), found)
    check_tensor("qnormalize", "the offset", call.args[2], ("int32",), found)
    return tensor_type(shape, "int8")


def _define(call: relax.Call, x: Any, factor: Any, offset: Any) -> Any:
    attrs, shape = call.attrs, static_shape(call.args[0])
    axes, centred = [int(axis) for axis in attrs.axes], bool(attrs.centred)
    count = math.prod(shape[axis] for axis in axes)
    rows = [1 if axis in axes else dim for axis, dim in enumerate(shape)]
    zero = tirx.const(0 if centred else int(attrs.input_zero_point), "int32")

    def row(index: Sequence[Any]) -> list[Any]:
        return [0 if axis in axes else i for axis, i in enumerate(index)]

    def summed(power: int, name: str) -> Any:
        along = {axis: te.reduce_axis((0, shape[axis]), f"r{axis}") for axis in axes}

        def element(*index: Any) -> Any:
            value = x(*[along.get(axis, i) for axis, i in enumerate(index)]).astype("int32") - zero
            # A sum of squares needs more than 32 bits only where there are many.
            term = value if power == 1 else (value * value).astype("int32" if count < 1 << 15 else "int64")
            return te.sum(term, axis=list(along.values()))

        return te.compute(rows, element, name=name)

    squares = summed(2, "squares")
    total = summed(1, "total") if centred else None

    def variance(*i: Any) -> Any:
        value = squares(*i).astype("int64") * tirx.const(count, "int64")
        if total is not None:
            value = value - total(*i).astype("int64") * total(*i).astype("int64")
        value = value + tirx.const(int(attrs.epsilon), "int64")
        return tirx.max(value, tirx.const(1, "int64"))

    spread = te.compute(rows, variance, name="variance")
    root, exponent = _te_reciprocal_root(spread, rows)
    bits = fraction_bits(count)

    def normalized(*i: Any) -> Any:
        value = (x(*i).astype("int32") - zero) * tirx.const(count, "int32")
        if total is not None:
            value = value - total(*row(i))
        shift = exponent(*row(i)).astype("int64") - tirx.const(bits, "int64")
        one = tirx.const(1, "int64")
        product = value.astype("int64") * root(*row(i)).astype("int64")
        return tirx.shift_right(product + tirx.shift_left(one, shift - one), shift).astype("int32")

    y = te.compute(shape, normalized, name="normalized")
    sizes = static_shape(call.args[1])

    def scaled(*i: Any) -> Any:
        place = [0 if size == 1 else k for size, k in zip(sizes, i)]
        return y(*i) * factor(*place).astype("int32") + offset(*place)

    acc = te.compute(shape, scaled, name="scaled")
    return te_requantized(acc, attrs)


def _te_reciprocal_root(w: Any, shape: Sequence[int]) -> tuple[Any, Any]:
    """`reciprocal_root` as expressions: (root, exponent), int32."""

    def pairs(*i: Any) -> Any:
        count = tirx.const(0, "int32")
        for bit in range(0, 60, 2):
            count = count + (w(*i) < tirx.const(1 << (60 - bit), "int64")).astype("int32")
        return count

    left = te.compute(shape, pairs, name="pairs")
    mantissa = te.compute(
        shape,
        lambda *i: tirx.shift_right(
            tirx.shift_left(w(*i), left(*i).astype("int64") * tirx.const(2, "int64")), tirx.const(32, "int64")
        ),
        name="mantissa",
    )

    def product(a: Any, b: Any, bits: int) -> Any:
        return tirx.shift_right(a * b, tirx.const(bits, "int64"))

    start = te.compute(
        shape,
        lambda *i: tirx.const(ROOT_A, "int64") - product(mantissa(*i), tirx.const(ROOT_B, "int64"), 30),
        name="start",
    )
    for step in range(ROOT_STEPS):
        start = _newton(start, mantissa, shape, step, product)
    root = te.compute(shape, lambda *i: start(*i).astype("int32"), name="reciprocal_root")
    exponent = te.compute(shape, lambda *i: tirx.const(60, "int32") - left(*i), name="exponent")
    return root, exponent


def _newton(previous: Any, mantissa: Any, shape: Sequence[int], step: int, product: Any) -> Any:
    """One step of Newton's iteration for a reciprocal square root."""
    square = te.compute(shape, lambda *i: product(previous(*i), previous(*i), 29), name=f"square{step}")
    error = te.compute(
        shape,
        lambda *i: tirx.const(3 << 29, "int64") - product(mantissa(*i), square(*i), 30),
        name=f"error{step}",
    )
    return te.compute(shape, lambda *i: product(previous(*i), error(*i), 30), name=f"newton{step}")


register_operator("qnormalize", 3, "Integer normalization", _infer, _define)
