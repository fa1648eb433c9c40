"""The operator that gives int8 weights from two of every four; see `passes.numbers.sparsity_2_4`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._tvm import relax, te, tirx
from ..numbers.sparsity_2_4 import GROUP, KEPT, unpack_2_4
from ..reference.registry import Context, Value, ints, register_reference
from .registry import PREFIX, check_tensor, make_call, register_operator, tensor_type


def sparse_weight(values: relax.Expr, indices: relax.Expr, *, shape: Sequence[int]) -> relax.Call:
    """The int8 weights of an integer layer from two of every four along the last axis.

    Args:
        values: int8 (size / 2,).
        indices: uint8 (ceil(size / 8),), four bits for each group of four.
        shape: Of the weight; four divides its last axis.

    Returns:
        A call of type int8.
    """
    return make_call(_UNPACK, [values, indices], shape=shape)


def _infer(call: relax.Call) -> relax.TensorType:
    shape = ints(call.attrs.shape)
    if not shape or shape[-1] % GROUP:
        raise ValueError(f"unpack_2of4: the last axis of {tuple(shape)} does not come in groups of {GROUP}")
    groups = int(np.prod(shape)) // GROUP
    check_tensor("unpack_2of4", "the values", call.args[0], ("int8",), (groups * KEPT,))
    check_tensor("unpack_2of4", "the indices", call.args[1], ("uint8",), (-(-groups // 2),))
    return tensor_type(shape, "int8")


def te_sparse(call: relax.Call, values: Any, indices: Any) -> Any:
    """The definition of `unpack_2of4` as a tensor expression."""
    shape = ints(call.attrs.shape)
    strides = [int(np.prod(shape[i + 1 :])) // GROUP for i in range(len(shape) - 1)]

    def element(*index: Any) -> Any:
        group = sum((i * stride for i, stride in zip(index, strides)), index[-1] // GROUP)
        place = (index[-1] % GROUP).astype("int32")
        code = tirx.shift_right(indices[group // 2].astype("int32"), (group % 2).astype("int32") * 4)
        first = tirx.bitwise_and(code, tirx.const(3, "int32"))
        second = tirx.bitwise_and(tirx.shift_right(code, tirx.const(2, "int32")), tirx.const(3, "int32"))
        zero = tirx.const(0, "int8")
        later = tirx.Select(place.equal(second), values[group * KEPT + 1], zero)
        return tirx.Select(place.equal(first), values[group * KEPT], later)

    return te.compute(shape, element, name="unpacked")


@register_reference(PREFIX + "unpack_2of4")
def _unpack_2_4(args: Sequence[Value], context: Context) -> Value:
    values, indices = args
    return unpack_2_4(values, indices, tuple(ints(context.attrs.shape)))


_UNPACK = register_operator("unpack_2of4", 2, "Weights from two of every four", _infer, te_sparse)
