"""Operators that move values: shapes, slices, paddings."""

from __future__ import annotations

import numpy as np

from ...passes._tvm import relax
from .registry import CannotImportError, Node, Result, constant, onnx_op


@onnx_op("Squeeze")
def _squeeze(node: Node) -> Result:
    axes = node.axes()
    shape = node.shape()
    if axes is None:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
    return relax.op.squeeze(node.operand(0), sorted(axes)) if axes else node.operand(0)


@onnx_op("Unsqueeze")
def _unsqueeze(node: Node) -> Result:
    named = node.integers(1, "axes")
    if named is None:
        named = list(node.options["axes"])
    rank = len(node.shape()) + len(named)
    return relax.op.expand_dims(node.operand(0), sorted(int(axis) % rank for axis in named))


@onnx_op("Reshape")
def _reshape(node: Node) -> Result:
    wanted = node.integers(1, "shape")
    assert wanted is not None
    shape = node.shape()
    if not node.options.get("allowzero", 0):
        wanted = [shape[index] if size == 0 else size for index, size in enumerate(wanted)]
    if -1 in wanted:
        rest = int(np.prod([size for size in wanted if size != -1]))
        wanted[wanted.index(-1)] = int(np.prod(shape)) // max(rest, 1)
    return relax.op.reshape(node.operand(0), wanted)


@onnx_op("Expand")
def _expand(node: Node) -> Result:
    wanted = node.integers(1, "shape")
    assert wanted is not None
    return relax.op.broadcast_to(node.operand(0), list(np.broadcast_shapes(node.shape(), tuple(wanted))))


@onnx_op("Tile")
def _tile(node: Node) -> Result:
    repeats = node.integers(1, "repeats")
    assert repeats is not None
    return relax.op.tile(node.operand(0), repeats)


@onnx_op("Slice")
def _slice(node: Node) -> Result:
    shape = node.shape()
    begin, end = node.integers(1, "starts"), node.integers(2, "ends")
    assert begin is not None
    assert end is not None
    axes = node.integers(3, "axes") or list(range(len(begin)))
    steps = node.integers(4, "steps") or [1] * len(begin)
    kept = []
    for axis, low, high, step in zip(axes, begin, end, steps):
        size = shape[axis % len(shape)]
        first, last, _ = slice(low, high, step).indices(size)
        if len(range(first, last, step)) == 0:
            raise CannotImportError("nothing is left of its operand; tensors without elements are not imported")
        # Going backwards to the first element ends before it.
        kept.append((axis % len(shape), first, last if last >= 0 else -(size + 1), step))
    return relax.op.strided_slice(node.operand(0), *(list(column) for column in zip(*kept)))


@onnx_op("Split")
def _split(node: Node) -> Result:
    axis, size = node.axis(0), node.shape()[node.axis(0)]
    sizes = node.integers(1, "sizes") or list(node.options.get("split", []))
    if not sizes:
        count = int(node.options.get("num_outputs", len(node.outputs)))
        part = -(-size // count)
        sizes = [min(part, size - part * index) for index in range(count)]
    if any(part <= 0 for part in sizes):
        raise CannotImportError("it gives a tensor without elements, which is not imported")
    if len(sizes) == 1:
        return [node.operand(0)]
    parts = node.call(relax.op.split, node.operand(0), np.cumsum(sizes)[:-1].tolist(), axis)
    return [node.emit(relax.TupleGetItem(parts, index)) for index in range(len(sizes))]


@onnx_op("Pad")
def _pad(node: Node) -> Result:
    """Padding as the operator for it; what is cut off (negative widths) is sliced."""
    rank, shape = len(node.shape()), node.shape()
    widths = node.integers(1, "widths")
    if widths is None:
        widths = list(node.options["pads"])
    filler = node.value(2)
    if filler is None and node.given(2):
        raise CannotImportError("the value that it pads with must be constant, not computed at run time")
    axes = node.integers(3, "axes")
    chosen = range(rank) if axes is None else [axis % rank for axis in axes]
    pairs = np.zeros((rank, 2), np.int64)
    pairs[list(chosen)] = np.asarray(widths).reshape(2, -1).T
    mode = {"edge": "replicate", "wrap": "circular"}.get(node.text("mode", "constant"), node.text("mode", "constant"))
    x, value = node.operand(0), float(node.options.get("value", 0.0) if filler is None else filler.reshape(-1)[0])
    if (pairs < 0).any():
        cut = np.minimum(pairs, 0)
        begin, end = (-cut[:, 0]).tolist(), (np.asarray(shape) + cut[:, 1]).tolist()
        x = node.call(relax.op.strided_slice, x, list(range(rank)), begin, end)
        pairs = np.maximum(pairs, 0)
    if not pairs.any():
        return x
    if mode == "circular":
        return _padded_around(node, x, pairs)
    return relax.op.nn.pad(x, pairs.reshape(-1).tolist(), mode, value)


def _padded_around(node: Node, x: relax.Expr, pairs: np.ndarray) -> relax.Expr:
    for axis, (before, after) in enumerate(pairs.tolist()):
        if before or after:
            size = int(x.ty.shape[axis])
            order = np.arange(-before, size + after) % size
            x = node.emit(relax.op.take(x, constant(order), axis, "clip"))
    return x


@onnx_op("SpaceToDepth")
def _space_to_depth(node: Node) -> Result:
    block, (batch, channels, height, width) = int(node.options["blocksize"]), node.shape()
    blocks = [batch, channels, height // block, block, width // block, block]
    order = [0, 1, 3, 5, 2, 4] if node.text("mode", "DCR") == "CRD" else [0, 3, 5, 1, 2, 4]
    moved = node.call(relax.op.permute_dims, node.call(relax.op.reshape, node.operand(0), blocks), order)
    return relax.op.reshape(moved, [batch, channels * block**2, height // block, width // block])


@onnx_op("Trilu")
def _triangle(node: Node) -> Result:
    named = node.integers(1, "diagonal")
    rows, columns = node.shape()[-2:]
    make = np.triu if node.options.get("upper", 1) else np.tril
    mask = make(np.ones((rows, columns), bool), named[0] if named else 0)
    return relax.op.where(constant(mask), node.operand(0), node.scalar(0))


@onnx_op("EyeLike")
def _eye(node: Node) -> Result:
    from ..onnx_versions import tensor_dtype

    kind = node.options.get("dtype")
    rows, columns = node.shape()
    dtype = node.dtype() if kind is None else tensor_dtype(int(kind))
    return constant(np.eye(rows, columns, int(node.options.get("k", 0)), dtype))


@onnx_op("ConstantOfShape")
def _constant_of_shape(node: Node) -> Result:
    from onnx import numpy_helper

    shape = node.integers(0, "shape")
    assert shape is not None
    value = numpy_helper.to_array(node.options["value"]) if "value" in node.options else np.zeros(1, np.float32)
    return constant(np.full(shape, value.reshape(-1)[0], value.dtype))


@onnx_op("ReverseSequence")
def _reverse_sequence(node: Node) -> Result:
    lengths = node.integers(1, "lengths")
    assert lengths is not None
    time, batch = int(node.options.get("time_axis", 0)), int(node.options.get("batch_axis", 1))
    x, shape = node.operand(0), node.shape()
    rows = []
    for index, length in enumerate(lengths):
        row = node.call(relax.op.strided_slice, x, [batch], [index], [index + 1])
        order = np.r_[np.arange(length)[::-1], np.arange(length, shape[time])]
        rows.append(node.call(relax.op.take, row, constant(order), time, "clip"))
    return relax.op.concat(rows, batch)
