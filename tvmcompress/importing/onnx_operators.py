"""ONNX operators of which TVM's importer makes several, or shapes known only at run time: here each becomes one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..passes._tvm import Constant, relax
from ..passes.graph.module_params import static_shape


def convert(
    builder: relax.BlockBuilder, op_name: str, inputs: Sequence[Any], attrs: Mapping[str, Any]
) -> relax.Expr | None:
    """The call in the place of one node; None where TVM's own conversion serves.

    Args:
        builder: Where intermediate values are bound.
        op_name: The node's operator.
        inputs: Its inputs, constants inline.
        attrs: Its attributes.
    """
    if op_name == "Gather":
        return _gather(builder, inputs[0], inputs[1], int(attrs.get("axis", 0)))
    if op_name == "InstanceNormalization":
        return _instance_norm(builder, inputs, float(attrs.get("epsilon", 1e-5)))
    if op_name == "Einsum":
        return _einsum(builder, list(inputs), attrs["equation"])
    if op_name == "Tile" and len(inputs) > 1 and isinstance(inputs[1], Constant):
        return builder.normalize(relax.op.tile(inputs[0], inputs[1].value.numpy().tolist()))
    return None


def _gather(builder: relax.BlockBuilder, data: Any, indices: Any, axis: int) -> relax.Expr | None:
    """`take`, whose indices must not be negative; TVM's own asks for the size of the axis at run time."""
    shape = _shape(data)
    if shape is None or _shape(indices) is None or isinstance(data, Constant):
        return None
    size = shape[axis]
    if isinstance(indices, Constant):
        value = indices.value.numpy()
        index = relax.const(np.where(value < 0, value + size, value).astype("int64"), "int64")
    else:
        dtype = str(indices.ty.dtype)
        wrapped = relax.op.add(indices, relax.const(size, dtype))
        index = builder.normalize(relax.op.where(relax.op.less(indices, relax.const(0, dtype)), wrapped, indices))
    return builder.normalize(relax.op.take(data, index, axis % len(shape)))


def _instance_norm(builder: relax.BlockBuilder, inputs: Sequence[Any], epsilon: float) -> relax.Expr | None:
    shape = _shape(inputs[0])
    if shape is None or len(shape) < 3:
        return None
    axes = list(range(2, len(shape)))
    return builder.normalize(relax.op.nn.instance_norm(*inputs[:3], channel_axis=1, axes=axes, epsilon=epsilon))


def _einsum(builder: relax.BlockBuilder, operands: list[Any], equation: str | bytes) -> relax.Expr:
    text = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    if "->" not in text:
        # Without a result it is made of the letters that occur once, in alphabetical order.
        letters = sorted({letter for letter in text if letter.isalpha() and text.count(letter) == 1})
        text += "->" + ("..." if "..." in text else "") + "".join(letters)
    return builder.normalize(relax.op.einsum(operands, text))


def _shape(expr: Any) -> tuple[int, ...] | None:
    if not isinstance(expr, relax.Expr) or not isinstance(expr.ty, relax.TensorType):
        return None
    try:
        return static_shape(expr)
    except ValueError:
        return None
