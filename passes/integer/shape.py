"""Integer operators that put tensors together or change their size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from .registry import activation_dtypes, check_tensor, dtype_of, register_typed, result_dtype, tensor_type, typed_call
from .requantization import Requantization, requantized_call
from .requantize import te_requantize, te_saturate

# Weights of linear interpolation are multiples of 1 / 1024, as in TensorFlow Lite.
RESIZE_BITS = 10


def qconcat(
    tensors: Sequence[relax.Expr],
    *,
    axis: int,
    input_zero_points: Sequence[int],
    multipliers: Sequence[int],
    shifts: Sequence[int],
    **requantization: Unpack[Requantization],
) -> relax.Call:
    """Concatenation, every input brought to the output's scale and zero point as `qrequantize` does it.

    Args:
        tensors: int8, at least one.
        axis: Not negative.
        input_zero_points: One a tensor.
        multipliers: One a tensor; with the shift, of its scale / output scale. `IDENTITY` leaves values as they are.
        shifts: One a tensor.

    Returns:
        A call of type int8.
    """
    factors = {"input_zero_points": input_zero_points, "multipliers": multipliers, "shifts": shifts}
    return requantized_call("concat", [relax.Tuple(list(tensors))], requantization, axis=axis, **factors)


# The factor 1: multiplier and shift. Exact under both roundings.
IDENTITY = (1 << 30, 1)


def qpad(x: relax.Expr, *, pad_width: Sequence[int], value: int) -> relax.Call:
    """A border of `value`, usually the zero point.

    Args:
        x: int8, any shape.
        pad_width: Before and after each axis: before0, after0, before1, ...
        value: In [-128, 127].
    """
    return typed_call("pad", [x], dtype_of(x), pad_width=pad_width, value=value)


def qresize(
    x: relax.Expr,
    *,
    rows: Sequence[int],
    columns: Sequence[int],
    row_weights: Sequence[int] | None = None,
    column_weights: Sequence[int] | None = None,
) -> relax.Call:
    """Another height and width, by nearest neighbour or linear interpolation; scale and zero point stay.

    Every output row is rows[i] of the input or, with weights, row rows[i] and the next one (the last one counting as
    its own next) mixed as (1024 - row_weights[i]) : row_weights[i]; columns likewise. The mixed value is rounded half
    away from zero.

    Args:
        x: int8 (N, H, W, C).
        rows: One input row an output row.
        columns: One input column an output column.
        row_weights: In [0, 1024]; None for nearest neighbour.
        column_weights: The same for columns.

    Returns:
        A call of type int8 (N, len(rows), len(columns), C).
    """
    return typed_call(
        "resize",
        [x],
        dtype_of(x),
        rows=rows,
        columns=columns,
        row_weights=row_weights if row_weights is not None else [],
        column_weights=column_weights if column_weights is not None else [],
    )


def _infer_concat(call: relax.Call) -> relax.TensorType:
    fields, axis = list(call.args[0].ty.fields), int(call.attrs.axis)
    shapes = [tuple(int(dim) for dim in field.shape) for field in fields]
    if any(str(field.dtype) not in activation_dtypes(call) for field in fields):
        raise ValueError("qconcat: every input must be int8")
    rest = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(rest) != 1 or not 0 <= axis < len(shapes[0]):
        raise ValueError(f"qconcat: shapes {shapes} cannot be joined along axis {axis}")
    for name in ("input_zero_points", "multipliers", "shifts"):
        if len(call.attrs[name]) != len(fields):
            raise ValueError(f"qconcat: {len(fields)} inputs but {len(call.attrs[name])} {name}")
    total = sum(shape[axis] for shape in shapes)
    return tensor_type((*shapes[0][:axis], total, *shapes[0][axis + 1 :]), result_dtype(call.attrs))


def _infer_pad(call: relax.Call) -> relax.TensorType:
    shape, width = static_shape(call.args[0]), call.attrs.pad_width
    if dtype_of(call.args[0]) not in activation_dtypes(call):
        raise ValueError(f"qpad: the input must be int8, got {dtype_of(call.args[0])}")
    if len(width) != 2 * len(shape) or min(width, default=0) < 0:
        raise ValueError(f"qpad: pad_width {list(width)} does not fit shape {shape}")
    return tensor_type([d + width[2 * i] + width[2 * i + 1] for i, d in enumerate(shape)], result_dtype(call.attrs))


def _infer_resize(call: relax.Call) -> relax.TensorType:
    check_tensor("qresize", "the input", call.args[0], activation_dtypes(call), (None,) * 4)
    n, h, w, c = static_shape(call.args[0])
    attrs = call.attrs
    for indices, size, weights in ((attrs.rows, h, attrs.row_weights), (attrs.columns, w, attrs.column_weights)):
        if any(not 0 <= index < size for index in indices):
            raise ValueError(f"qresize: indices {list(indices)} reach outside {size}")
        if len(weights) not in (0, len(indices)) or any(not 0 <= weight <= 1 << RESIZE_BITS for weight in weights):
            raise ValueError("qresize: there must be one weight in [0, 1024] for each index, or none")
    return tensor_type((n, len(attrs.rows), len(attrs.columns), c), result_dtype(attrs))


def _define_concat(call: relax.Call, tensors: list[Any]) -> Any:
    attrs, axis = call.attrs, int(call.attrs.axis)
    shape = _infer_concat(call).shape

    def rescaled(tensor: Any, zero: int, multiplier: int, shift: int) -> Any:
        def element(*i: Any) -> Any:
            value = tensor(*i).astype("int32") - tirx.const(zero, "int32")
            is_same = (multiplier, shift) == IDENTITY
            return te_saturate(value, attrs) if is_same else te_requantize(value, attrs, multiplier, shift)

        return te.compute(tensor.shape, element, name="part")

    parts = list(map(rescaled, tensors, attrs.input_zero_points, attrs.multipliers, attrs.shifts))
    starts = np.cumsum([0, *(int(part.shape[axis]) for part in parts)])

    def joined(*index: Any) -> Any:
        value = parts[0](*index)
        for part, start in list(zip(parts, starts))[1:]:
            place = (*index[:axis], index[axis] - int(start), *index[axis + 1 :])
            value = tirx.if_then_else(index[axis] >= int(start), part(*place), value)
        return value

    return te.compute(shape, joined, name="joined")


def _define_pad(call: relax.Call, x: Any) -> Any:
    width = call.attrs.pad_width
    shape = static_shape(call.args[0])

    def element(*index: Any) -> Any:
        place = [i - width[2 * axis] for axis, i in enumerate(index)]
        inside = [
            tirx.all(i >= 0, i < size)
            for axis, (i, size) in enumerate(zip(place, shape))
            if width[2 * axis] or width[2 * axis + 1]
        ]
        if not inside:
            return x(*index)
        return tirx.if_then_else(tirx.all(*inside), x(*place), tirx.const(int(call.attrs.value), result_dtype(call.attrs)))

    return te.compute(_infer_pad(call).shape, element, name="padded")


def _constant(values: Sequence[int], index: Any) -> Any:
    """values[index] as an expression: an affine form where there is one, otherwise a chain of comparisons."""
    values = [int(value) for value in values]
    if len(set(values)) == 1:
        return tirx.const(values[0], "int32")
    i = index.astype("int32")
    for factor in range(1, len(values) + 1):
        if all(value == k // factor + values[0] for k, value in enumerate(values)):
            return tirx.floordiv(i, tirx.const(factor, "int32")) + tirx.const(values[0], "int32")
    for factor in range(2, max(values) + 1):
        if all(value == k * factor + values[0] for k, value in enumerate(values)):
            return i * tirx.const(factor, "int32") + tirx.const(values[0], "int32")
    found = tirx.const(values[0], "int32")
    for k in range(1, len(values)):
        if values[k] != values[k - 1]:
            found = tirx.Select(i >= k, tirx.const(values[k], "int32"), found)
    return found


def _define_resize(call: relax.Call, x: Any) -> Any:
    attrs = call.attrs
    _, h, w, _ = static_shape(call.args[0])
    shape = _infer_resize(call).shape
    # Indices are tables of their own, so that a long chain of comparisons is not evaluated for every channel.
    row_at = te.compute((len(attrs.rows),), lambda i: _constant(attrs.rows, i), name="rows")
    column_at = te.compute((len(attrs.columns),), lambda i: _constant(attrs.columns, i), name="columns")
    if not attrs.row_weights:
        return te.compute(shape, lambda n, i, j, k: x[n, row_at[i], column_at[j], k], name="resized")
    one = tirx.const(1 << RESIZE_BITS, "int32")
    # 20 bits more than the input has.
    kind = "int32" if result_dtype(attrs) == "int8" else "int64"
    row_weight = te.compute((len(attrs.rows),), lambda i: _constant(attrs.row_weights, i), name="row_weights")
    column_weight = te.compute((len(attrs.columns),), lambda i: _constant(attrs.column_weights, i), name="column_weights")

    def mixed(n: Any, i: Any, j: Any, k: Any) -> Any:
        row, column = row_at[i], column_at[j]
        below, right = tirx.min(row + 1, tirx.const(h - 1, "int32")), tirx.min(column + 1, tirx.const(w - 1, "int32"))

        def line(r: Any) -> Any:
            first, second = x[n, r, column, k].astype("int32"), x[n, r, right, k].astype("int32")
            return (first * (one - column_weight[j]) + second * column_weight[j]).astype(kind)

        return line(row) * (one - row_weight[i]).astype(kind) + line(below) * row_weight[i].astype(kind)

    total = te.compute(shape, mixed, name="mixed")
    half, unit = tirx.const(1 << (2 * RESIZE_BITS - 1), kind), tirx.const(1 << (2 * RESIZE_BITS), kind)

    def rounded(*i: Any) -> Any:
        value = total(*i)
        return tirx.truncdiv(tirx.Select(value > 0, value + half, value - half), unit).astype(result_dtype(attrs))

    return te.compute(shape, rounded, name="resized")


register_typed("concat", 1, "Integer concatenation of several scales", _infer_concat, _define_concat)
register_typed("pad", 1, "Integer padding", _infer_pad, _define_pad)
register_typed("resize", 1, "Integer resizing", _infer_resize, _define_resize)
