"""Products of two activations, as attention takes them: the second one is packed as the weights of a layer are.

| operator | first | second | packed |
|---|---|---|---|
| `tvmcompress.x86_pack` | float32 (..., K, N) | | float32 (..., N / lanes, K, lanes) |
| `tvmcompress.x86_qpack` | int8 (..., K, N) | | int16 (..., N / lanes, K / 2, lanes, 2), less its zero point |
| `tvmcompress.x86_product` | float32 (..., M, K) | packed | |
| `tvmcompress.x86_qproduct` | int8 (..., M, K) | packed | |

N is filled up to whole vectors and K to whole groups with zeros; what they give is left out of the result. Integers are
widened to 16 bits, less their zero points, so that no sums of rows or columns are needed.
"""

from __future__ import annotations

from typing import Any

from ....passes._tvm import relax, te, tirx
from ....passes.graph.module_params import static_shape
from ....passes.integer.registry import make_call, register_operator, tensor_type
from ....passes.integer.requantization import requantization_of
from ....passes.integer.requantize import te_requantize, te_saturate
from .intrinsics import BLOCK_ANNOTATION, DOT_ANNOTATION, LANES_ANNOTATION, MADD4, MADD8, MADD16, Dot
from .requantize import te_multiply_small
from .widths import padded_width

_GROUP = 2
_SMALL_DEPTH = (1 << 30) // (255 * 255)
"""Products of which a sum is below 2**30."""


def x86_product(a: relax.Expr, packed: relax.Expr, columns: int, lanes: int) -> relax.Call:
    """The product.

    Args:
        a: float32 (..., M, K).
        packed: Of `x86_pack`, with the same leading axes.
        columns: N.
        lanes: Floats of a register.
    """
    return make_call(_PRODUCT, [a, packed], columns=columns, lanes=lanes)


def x86_pack(b: relax.Expr, lanes: int) -> relax.Call:
    """The second operand of `x86_product`, float32 (..., K, N)."""
    return make_call(_PACK, [b], lanes=lanes)


def x86_qpack(b: relax.Expr, zero_point: int, lanes: int) -> relax.Call:
    """The second operand of `x86_qproduct`, int8 (..., K, N)."""
    return make_call(_QPACK, [b], lanes=lanes, zero_point=zero_point)


def x86_qproduct(a: relax.Expr, packed: relax.Expr, attrs: Any, columns: int) -> relax.Call:
    """What `qmatmul` computes.

    Args:
        a: int8 (..., M, K).
        packed: Of `x86_qpack`, with the same leading axes.
        attrs: Of the `qmatmul`.
        columns: N.
    """
    factor = {"multiplier": int(attrs.multiplier), "shift": int(attrs.shift), **requantization_of(attrs)}
    return make_call(_QPRODUCT, [a, packed], zero_point=int(attrs.input1_zero_point), columns=columns, **factor)


def halves(features: frozenset[str], columns: int) -> Dot:
    """The product of halves to use."""
    if "avx2" not in features:
        return MADD4
    return MADD16 if "avx512bw" in features and columns > 8 else MADD8


def _infer_pack(call: relax.Call) -> relax.TensorType:
    *outer, depth, columns = static_shape(call.args[0])
    lanes = int(call.attrs.lanes)
    blocks = -(-columns // lanes)
    if call.op == _PACK:
        return tensor_type((*outer, blocks, depth, lanes), "float32")
    return tensor_type((*outer, blocks, -(-depth // _GROUP), lanes, _GROUP), "int16")


def _define_pack(call: relax.Call, b: Any) -> Any:
    lanes, columns = int(call.attrs.lanes), static_shape(call.args[0])[-1]

    def element(*i: Any) -> Any:
        *outer, block, row, lane = i
        column = block * lanes + lane
        if columns % lanes == 0:
            return b(*outer, row, column)
        return tirx.if_then_else(column < columns, b(*outer, row, column), tirx.const(0.0, "float32"))

    return te.compute(_infer_pack(call).shape, element, name="packed")


def _define_qpack(call: relax.Call, b: Any) -> Any:
    lanes, zero = int(call.attrs.lanes), tirx.const(int(call.attrs.zero_point), "int16")
    depth, columns = static_shape(call.args[0])[-2:]

    def element(*i: Any) -> Any:
        *outer, block, pair, lane, item = i
        row, column = pair * _GROUP + item, block * lanes + lane
        value = b(*outer, row, column).astype("int16") - zero
        if depth % _GROUP == 0 and columns % lanes == 0:
            return value
        return tirx.if_then_else(tirx.all(row < depth, column < columns), value, tirx.const(0, "int16"))

    return te.compute(_infer_pack(call).shape, element, name="packed")


def _infer_product(call: relax.Call) -> relax.TensorType:
    *outer, rows, _ = static_shape(call.args[0])
    return tensor_type((*outer, rows, int(call.attrs.columns)), "float32" if call.op == _PRODUCT else "int8")


def _define_product(call: relax.Call, a: Any, packed: Any) -> Any:
    *outer, rows, columns = (int(dim) for dim in _infer_product(call).shape)
    *_, blocks, depth, lanes = static_shape(call.args[1])
    axis, wide = te.reduce_axis((0, depth), "k"), padded_width(rows)

    def element(*i: Any) -> Any:
        *place, row, column = i
        kept = tirx.min(row, tirx.const(rows - 1, "int32")) if wide != rows else row
        return te.sum(a(*place, kept, axis) * packed(*place, column // lanes, axis, column % lanes), axis=[axis])

    annotations = {BLOCK_ANNOTATION: lanes, **({LANES_ANNOTATION: lanes} if lanes > 8 else {})}
    acc = te.compute((*outer, wide, blocks * lanes), element, name="product", attrs=annotations)
    return (
        te.compute((*outer, rows, columns), lambda *i: acc(*i), name="kept")
        if acc.shape[-1] != columns or wide != rows
        else acc
    )


def _define_qproduct(call: relax.Call, a: Any, packed: Any) -> Any:
    attrs = call.attrs
    *outer, rows, columns = (int(dim) for dim in _infer_product(call).shape)
    *_, blocks, pairs, lanes, group = static_shape(call.args[1])
    depth = static_shape(call.args[0])[-1]
    dot = next(dot for dot in (MADD4, MADD8, MADD16) if dot.lanes == lanes)
    wide, zero = padded_width(rows), tirx.const(int(attrs.zero_point), "int16")

    def widened(*i: Any) -> Any:
        *place, row, k = i
        value = a(*place, row, k).astype("int16") - zero
        if wide == rows and pairs * group == depth:
            return value
        return tirx.if_then_else(tirx.all(row < rows, k < depth), value, tirx.const(0, "int16"))

    first = te.compute((*outer, wide, pairs * group), widened, name="widened")
    part, item = te.reduce_axis((0, pairs), "part"), te.reduce_axis((0, group), "item")

    def element(*i: Any) -> Any:
        *place, row, column = i
        weight = packed(*place, column // lanes, part, column % lanes, item)
        return te.sum(first(*place, row, part * group + item).astype("int32") * weight.astype("int32"), axis=[part, item])

    acc = te.compute((*outer, wide, blocks * lanes), element, name="dot", attrs={DOT_ANNOTATION: dot.broadcast})
    small = str(attrs.rounding) == "double" and int(attrs.shift) <= 0 and depth <= _SMALL_DEPTH

    def result(*i: Any) -> Any:
        if not small:
            return te_requantize(acc(*i), attrs)
        return te_saturate(te_multiply_small(acc(*i), int(attrs.multiplier), -int(attrs.shift)), attrs)

    wide_result = te.compute((*outer, rows, blocks * lanes), result, name="requantized")
    if blocks * lanes == columns:
        return wide_result
    return te.compute((*outer, rows, columns), lambda *i: wide_result(*i), name="kept")


_PACK = register_operator("x86_pack", 1, "Second factor of a float product, packed for x86", _infer_pack, _define_pack)
_QPACK = register_operator("x86_qpack", 1, "Second factor of an integer product, packed for x86", _infer_pack, _define_qpack)
_PRODUCT = register_operator("x86_product", 2, "Float product, second factor packed for x86", _infer_product, _define_product)
_QPRODUCT = register_operator(
    "x86_qproduct", 2, "Integer product, second factor packed for x86", _infer_product, _define_qproduct
)
