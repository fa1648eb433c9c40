"""Operators that look up and write by index."""

from __future__ import annotations

import numpy as np

from ...passes._tvm import Constant, relax
from .registry import CannotImportError, Node, Result, constant, onnx_op


@onnx_op("Gather")
def _gather(node: Node) -> Result:
    """`take`, whose indices must not be negative; TVM's own asks for the size of the axis at run time."""
    axis = node.axis(0)
    index = _positive(node, 1, node.shape()[axis])
    # Out of range is an error of the data; it must not read foreign memory.
    return relax.op.take(node.operand(0), index, axis, "clip")


def _positive(node: Node, place: int, size: int) -> relax.Expr:
    """Indices counted from the front."""
    given = node.operand(place)
    value = node.value(place)
    if value is not None:
        _check_range(value, size)
        return constant(np.where(value < 0, value + size, value).astype(np.int64))
    dtype = str(given.ty.dtype)
    wrapped = relax.op.add(given, relax.const(size, dtype))
    return node.call(relax.op.where, relax.op.less(given, relax.const(0, dtype)), wrapped, given)


def _check_range(value: np.ndarray, size: int) -> None:
    if value.size and (value.min() < -size or value.max() >= size):
        raise CannotImportError(f"it looks up index {int(value.max())} where there are {size} entries")


@onnx_op("GatherElements")
def _gather_elements(node: Node) -> Result:
    axis = node.axis(0)
    return relax.op.gather_elements(node.operand(0), _positive(node, 1, node.shape()[axis]), axis)


@onnx_op("GatherND")
def _gather_nd(node: Node) -> Result:
    batch, shape = int(node.options.get("batch_dims", 0)), node.shape()
    index = _positive_tuples(node, 1, shape[batch:])
    return relax.op.gather_nd(node.operand(0), index, batch)


def _positive_tuples(node: Node, place: int, sizes: tuple[int, ...]) -> relax.Expr:
    """Tuples of indices, one axis each, counted from the front."""
    count = node.shape(place)[-1]
    limits = np.asarray(sizes[:count], np.int64)
    value = node.value(place)
    if value is not None:
        if value.size and ((value < -limits) | (value >= limits)).any():
            raise CannotImportError(f"it looks up an index outside of {list(sizes[:count])}")
        return constant(np.where(value < 0, value + limits, value).astype(np.int64))
    given = node.operand(place)
    wrapped = relax.op.add(given, relax.const(limits, "int64"))
    return node.call(relax.op.where, relax.op.less(given, relax.const(0, "int64")), wrapped, given)


_REDUCTIONS = {"none": "update", "add": "add", "mul": "mul", "min": "min", "max": "max"}


@onnx_op("ScatterElements", "Scatter")
def _scatter_elements(node: Node) -> Result:
    axis = node.axis(0)
    index = _positive(node, 1, node.shape()[axis])
    how = _REDUCTIONS[node.text("reduction", "none")]
    return relax.op.scatter_elements(node.operand(0), index, node.operand(2), axis, how)


@onnx_op("ScatterND")
def _scatter_nd(node: Node) -> Result:
    index = _positive_tuples(node, 1, node.shape())
    return relax.op.scatter_nd(node.operand(0), index, node.operand(2), _REDUCTIONS[node.text("reduction", "none")])


@onnx_op("OneHot")
def _one_hot(node: Node) -> Result:
    depth = node.integers(1, "depth")
    assert depth is not None
    size, rank = depth[0], len(node.shape())
    axis = int(node.options.get("axis", -1)) % (rank + 1)
    values = node.value(2)
    if values is None:
        raise CannotImportError("its values must be constant, not computed at run time")
    given = node.operand(0)
    if not node.dtype().startswith("int64"):
        given = node.call(relax.op.astype, given, "int64")
    wrapped = node.call(relax.op.add, given, relax.const(size, "int64"))
    index = node.call(relax.op.where, node.call(relax.op.less, given, relax.const(0, "int64")), wrapped, given)
    places = np.arange(size).reshape([-1 if place == axis else 1 for place in range(rank + 1)])
    hit = node.call(relax.op.equal, node.call(relax.op.expand_dims, index, axis), constant(places))
    off, on = (constant(value) for value in values.reshape(-1))
    return relax.op.where(hit, on, off)


@onnx_op("TopK")
def _top(node: Node) -> Result:
    if node.dtype() in ("int16", "uint16", "uint32", "uint64"):
        raise CannotImportError(f"values of type {node.dtype()} cannot be sorted")
    count = node.integers(1, "number of results")
    assert count is not None
    axis, largest = node.axis(-1), bool(node.options.get("largest", 1))
    found = node.call(relax.op.topk, node.operand(0), count[0], axis, "both", largest, "int64")
    return [node.emit(relax.TupleGetItem(found, index)) for index in range(2)]


@onnx_op("NonMaxSuppression", "NonZero", "Compress", "Unique", "MaxUnpool")
def _of_unknown_size(node: Node) -> Result:
    if node.kind == "MaxUnpool":
        raise CannotImportError("it needs the places that a MaxPool found, which are not imported")
    raise CannotImportError(
        "the size of its result depends on its input, and memory is planned before the model runs; export the model without it "
        "and run it afterwards"
    )


def is_constant(expr: relax.Expr) -> bool:
    """Whether a value stands in the graph itself."""
    return isinstance(expr, Constant)
