"""Reductions over axes."""

from __future__ import annotations

import numpy as np

from ...passes._tvm import relax
from .registry import Node, Result, constant, onnx_op

_PLAIN = {"ReduceSum": relax.op.sum, "ReduceMean": relax.op.mean, "ReduceMax": relax.op.max, "ReduceMin": relax.op.min}
_PLAIN |= {"ReduceProd": relax.op.prod}


def _axes(node: Node) -> list[int] | None:
    """What is reduced over; None for nothing at all."""
    axes = node.axes()
    if axes:
        return axes
    return None if node.options.get("noop_with_empty_axes", 0) else list(range(len(node.shape())))


@onnx_op(*_PLAIN)
def _reduce(node: Node) -> Result:
    axes, keep, x = _axes(node), bool(node.options.get("keepdims", 1)), node.operand(0)
    if not axes:
        return x
    if node.dtype() == "bool":
        counted = node.call(relax.op.astype, x, "int32")
        return relax.op.astype(node.emit(_PLAIN[node.kind](counted, axes, keep)), "bool")
    return _PLAIN[node.kind](x, axes, keep)


@onnx_op("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
def _norm(node: Node) -> Result:
    axes, keep, x = _axes(node), bool(node.options.get("keepdims", 1)), node.operand(0)
    top = None
    if node.kind == "ReduceL1":
        x = node.call(relax.op.abs, x)
    elif node.kind in ("ReduceL2", "ReduceSumSquare"):
        x = node.call(relax.op.multiply, x, x)
    elif node.kind == "ReduceLogSumExp":
        # As logarithms of sums are computed without overflow.
        top = node.call(relax.op.max, x, axes, True) if axes else x
        x = node.call(relax.op.exp, node.call(relax.op.subtract, x, top))
    total = node.call(relax.op.sum, x, axes, keep) if axes else x
    if node.kind == "ReduceL2":
        return relax.op.sqrt(total)
    if node.kind == "ReduceLogSum":
        return relax.op.log(total)
    if top is not None:
        if axes and not keep:
            top = node.call(relax.op.squeeze, top, axes)
        return relax.op.add(node.call(relax.op.log, total), top)
    return total


@onnx_op("ArgMax", "ArgMin")
def _arg(node: Node) -> Result:
    x, axis, keep = node.operand(0), node.axis(0), bool(node.options.get("keepdims", 1))
    find = relax.op.argmax if node.kind == "ArgMax" else relax.op.argmin
    if not node.options.get("select_last_index", 0):
        return find(x, axis, keep)
    # The first in the mirrored order is the last.
    mirrored = node.emit(find(node.call(relax.op.flip, x, axis), axis, keep))
    return relax.op.subtract(node.scalar(node.shape()[axis] - 1, "int64"), mirrored)


@onnx_op("CumSum", "CumProd")
def _cumulate(node: Node) -> Result:
    """Runs in log2(n) steps of shifted additions: TVM's own needs a kernel that not every target has."""
    named = node.integers(1, "axis")
    shape, rank = node.shape(), len(node.shape())
    axis = (named[0] if named else 0) % rank
    merge, fill = (relax.op.add, 0.0) if node.kind == "CumSum" else (relax.op.multiply, 1.0)
    backward = bool(node.options.get("reverse", 0))
    x = node.operand(0)

    def shifted(y: relax.Expr, step: int) -> relax.Expr:
        begin, end = (step, shape[axis]) if backward else (0, shape[axis] - step)
        part = node.call(relax.op.strided_slice, y, [axis], [begin], [end])
        width = [0] * (2 * rank)
        width[2 * axis + int(backward)] = step
        return node.call(relax.op.nn.pad, part, width, "constant", fill)

    if node.options.get("exclusive", 0):
        x = shifted(x, 1) if shape[axis] > 1 else node.call(relax.op.full, shape, node.scalar(fill), node.dtype())
    step = 1
    while step < shape[axis]:
        x = node.emit(merge(x, shifted(x, step)))
        step *= 2
    return x


@onnx_op("LpNormalization")
def _lp_normalization(node: Node) -> Result:
    axis, power, x = node.axis(-1), int(node.options.get("p", 2)), node.operand(0)
    raised = node.emit(relax.op.abs(x) if power == 1 else relax.op.multiply(x, x))
    total = node.call(relax.op.sum, raised, [axis], True)
    length = total if power == 1 else node.call(relax.op.sqrt, total)
    # Of a vector of zeros nothing is left.
    safe = node.call(relax.op.where, node.call(relax.op.equal, length, node.scalar(0)), node.scalar(1), length)
    return relax.op.divide(x, safe)


@onnx_op("Shape")
def _shape(node: Node) -> Result:
    return constant(np.asarray(node.shape()[node.options.get("start", 0) : node.options.get("end")], np.int64))


@onnx_op("Size")
def _size(node: Node) -> Result:
    return constant(np.asarray(np.prod(node.shape(), dtype=np.int64)))
