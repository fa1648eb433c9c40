"""Operators that give int8 weights from weights stored in four bits; see `int4_weights`.

`int4_weight` stands in the QDQ form, below the dequantization of a weight; `unpack_int4` in the integer program, where the
values lie two to a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._tvm import relax, te, tirx
from ..graph.module_params import static_shape
from ..numbers.int4_weights import spread, unpack_int4
from ..reference.registry import Context, Value, ints, register_reference
from .registry import PREFIX, check_tensor, make_call, register_operator, tensor_type


def int4_weight(
    values: relax.Expr, multipliers: relax.Expr, *, output_axis: int, input_axis: int, group_size: int
) -> relax.Call:
    """values * multipliers.

    Args:
        values: int8 in [-8, 7], any shape.
        multipliers: int8 (O, groups) in [1, 15].
        output_axis: The axis of output channels; not negative.
        input_axis: The axis of input channels.
        group_size: Input channels of a group; 0 for one group.

    Returns:
        A call of type int8, the shape of `values`.
    """
    return make_call(_WEIGHT, [values, multipliers], output_axis=output_axis, input_axis=input_axis, group_size=group_size)


def unpacked(
    packed: relax.Expr, multipliers: relax.Expr, *, shape: Sequence[int], output_axis: int, group_size: int
) -> relax.Call:
    """The int8 weights of an integer layer from packed ones.

    Args:
        packed: uint8 (ceil(size / 2),), the first of two values in the lower half, two's complement.
        multipliers: int8 (O, groups).
        shape: Of the weight; its last axis counts the input channels, unless it counts the outputs.
        output_axis: The axis of output channels.
        group_size: Input channels of a group; 0 for one group.

    Returns:
        A call of type int8.
    """
    return make_call(_UNPACK, [packed, multipliers], shape=shape, output_axis=output_axis, group_size=group_size)


def _infer_weight(call: relax.Call) -> relax.TensorType:
    shape = static_shape(call.args[0])
    check_tensor("int4_weight", "the values", call.args[0], ("int8",), (None,) * len(shape))
    groups = _groups(shape[int(call.attrs.input_axis)], int(call.attrs.group_size))
    check_tensor("int4_weight", "the multipliers", call.args[1], ("int8",), (shape[int(call.attrs.output_axis)], groups))
    return tensor_type(shape, "int8")


def _infer_unpack(call: relax.Call) -> relax.TensorType:
    shape, axis = ints(call.attrs.shape), int(call.attrs.output_axis)
    check_tensor("unpack_int4", "the values", call.args[0], ("uint8",), (-(-int(np.prod(shape)) // 2),))
    groups = 1 if axis == len(shape) - 1 else _groups(shape[-1], int(call.attrs.group_size))
    check_tensor("unpack_int4", "the multipliers", call.args[1], ("int8",), (shape[axis], groups))
    return tensor_type(shape, "int8")


def _groups(inputs: int, group_size: int) -> int:
    return -(-inputs // group_size) if group_size else 1


def te_unpacked(call: relax.Call, packed: Any, multipliers: Any) -> Any:
    """The definition of `unpack_int4` as a tensor expression."""
    shape, axis, size = ints(call.attrs.shape), int(call.attrs.output_axis), int(call.attrs.group_size)
    strides = [int(np.prod(shape[i + 1 :])) for i in range(len(shape))]
    grouped = static_shape(call.args[1])[1] > 1

    def element(*index: Any) -> Any:
        place = sum(i * stride for i, stride in zip(index, strides))
        byte = packed[place // 2].astype("int32")
        nibble = tirx.bitwise_and(tirx.shift_right(byte, (place % 2).astype("int32") * 4), tirx.const(15, "int32"))
        # The sign is the fourth bit. Shifting it to the top and back would do in C, but LLVM drops such pairs here.
        value = tirx.bitwise_xor(nibble, tirx.const(8, "int32")) - 8
        if grouped:
            value = value * multipliers[index[axis], index[-1] // size].astype("int32")
        return value.astype("int8")

    return te.compute(shape, element, name="unpacked")


def _define_weight(call: relax.Call, values: Any, multipliers: Any) -> Any:
    outputs, inputs, size = (int(call.attrs[key]) for key in ("output_axis", "input_axis", "group_size"))

    def element(*index: Any) -> Any:
        group = index[inputs] // size if size else 0
        return values(*index) * multipliers[index[outputs], group]

    return te.compute(values.shape, element, name="weight")


@register_reference(PREFIX + "int4_weight")
def _int4_weight(args: Sequence[Value], context: Context) -> Value:
    values, multipliers = args
    attrs = context.attrs
    outputs, inputs = int(attrs.output_axis), int(attrs.input_axis)
    wide = spread(multipliers, values.shape[inputs], int(attrs.group_size))
    shape = [dim if axis in (outputs, inputs) else 1 for axis, dim in enumerate(values.shape)]
    return values * (wide if outputs < inputs else wide.T).reshape(shape)


@register_reference(PREFIX + "unpack_int4")
def _unpack_int4(args: Sequence[Value], context: Context) -> Value:
    packed, multipliers = args
    attrs = context.attrs
    shape, axis = tuple(ints(attrs.shape)), int(attrs.output_axis)
    values = unpack_int4(packed, shape)
    if axis == len(shape) - 1:
        return values
    wide = spread(multipliers, shape[-1], int(attrs.group_size))
    return values * wide.reshape(shape[0], *(1,) * (len(shape) - 2), shape[-1])


_WEIGHT = register_operator("int4_weight", 2, "Weights of four bits times multipliers", _infer_weight, _define_weight)
_UNPACK = register_operator("unpack_int4", 2, "Weights from packed halves of bytes", _infer_unpack, te_unpacked)
