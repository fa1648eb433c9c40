"""Operators on every element by itself."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ...passes._tvm import relax
from .registry import CannotImportError, Node, Result, constant, onnx_op

_NO_BOUND = float(np.finfo(np.float32).max)
_MERGES = {"Sum": relax.op.add, "Mean": relax.op.add, "Max": relax.op.maximum, "Min": relax.op.minimum}


@onnx_op(*_MERGES)
def _merge(node: Node) -> Result:
    """Of several tensors, two after two."""
    merge = _MERGES[node.kind]
    merged = reduce(lambda sum_, other: node.emit(merge(sum_, other)), (node.operand(i) for i in range(len(node.inputs))))
    if node.kind == "Mean":
        return relax.op.multiply(merged, node.scalar(1 / len(node.inputs)))
    return merged


@onnx_op("Clip")
def _clip(node: Node) -> Result:
    """One `clip` where the limits are constants; TVM's own gives four operators that no pass recognizes."""
    x, floating = node.operand(0), node.dtype().startswith("float")
    bounds = [node.value(index) for index in (1, 2)]
    computed = any(node.given(index) and bounds[index - 1] is None for index in (1, 2))
    if floating and not computed:
        low, high = (d if v is None else float(v.reshape(())) for v, d in zip(bounds, (-_NO_BOUND, _NO_BOUND)))
        if low <= high:
            return relax.op.clip(x, low, high)
    # With limits that cross, the upper one holds.
    for index, limit in ((1, relax.op.maximum), (2, relax.op.minimum)):
        if node.given(index):
            bound = bounds[index - 1]
            x = node.emit(limit(x, node.operand(index) if bound is None else constant(bound.reshape(()))))
    return x


@onnx_op("Pow")
def _power(node: Node) -> Result:
    """The result has the dtype of the base; TVM raises floats only."""
    base, exponent, value = node.operand(0), node.operand(1), node.value(1)
    if node.dtype().startswith("float"):
        return relax.op.power(
            base, constant(value.astype(node.dtype())) if value is not None else node.cast(exponent, node.dtype())
        )
    raised = node.call(relax.op.power, node.cast(base, "float64"), node.cast(exponent, "float64"))
    if not node.dtype(1).startswith("float"):
        raised = node.call(relax.op.round, raised)
    return relax.op.astype(raised, node.dtype())


@onnx_op("IsInf")
def _is_infinite(node: Node) -> Result:
    positive, negative = (bool(node.options.get(f"detect_{sign}", 1)) for sign in ("positive", "negative"))
    if positive and negative:
        return relax.op.isinf(node.operand(0))
    if not positive and not negative:
        return constant(np.zeros(node.shape(), bool))
    return relax.op.equal(node.operand(0), node.scalar(np.inf if positive else -np.inf))


@onnx_op("Equal")
def _equal(node: Node) -> Result:
    """Compared with an infinity: the maximum of nothing but -inf is the lowest number in compiled code."""
    for index in (0, 1):
        value = node.value(index)
        if value is not None and value.dtype.kind == "f" and np.isinf(value).all() and len(set(value.reshape(-1))) == 1:
            other, most = node.operand(1 - index), np.finfo(value.dtype).max
            if value.reshape(-1)[0] < 0:
                return relax.op.less_equal(other, constant(np.full(value.shape, -most, value.dtype)))
            return relax.op.greater_equal(other, constant(np.full(value.shape, most, value.dtype)))
    return None


@onnx_op("Cosh", "Sinh")
def _hyperbolic(node: Node) -> Result:
    """From exponentials; LLVM has no such function."""
    x = node.operand(0)
    powers = [node.call(relax.op.exp, y) for y in (x, node.call(relax.op.negative, x))]
    halves = [node.call(relax.op.multiply, power, node.scalar(0.5)) for power in powers]
    return relax.op.add(*halves) if node.kind == "Cosh" else relax.op.subtract(*halves)


@onnx_op("Dropout")
def _dropout(node: Node) -> Result:
    ratio, training = node.value(1), node.value(2)
    if node.given(2) and (training is None or bool(training.reshape(()))) and (ratio is None or float(ratio.reshape(())) != 0):
        raise CannotImportError("it is in training mode; export the model in evaluation mode")
    mask = constant(np.ones(node.shape(), bool))
    return [node.operand(0), mask]


@onnx_op("PRelu")
def _prelu(node: Node) -> Result:
    """With a slope that is no vector along the channels, as ONNX defines it."""
    slope, shape = node.value(1), node.shape()
    channels = (shape[1:2] or (-1,)) + (1,) * max(len(shape) - 2, 0)
    if slope is not None and (slope.size == 1 or slope.shape == channels):
        return None
    x, zero = node.operand(0), node.scalar(0)
    negative = node.call(relax.op.minimum, x, zero)
    return relax.op.add(node.call(relax.op.maximum, x, zero), node.call(relax.op.multiply, negative, node.operand(1)))


@onnx_op("Hardmax")
def _hardmax(node: Node) -> Result:
    axis, shape = node.axis(-1), node.shape()
    best = node.emit(relax.op.argmax(node.operand(0), axis, keepdims=True))
    places = np.arange(shape[axis]).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    return relax.op.astype(node.call(relax.op.equal, best, constant(places)), node.dtype())


@onnx_op("BitShift")
def _shift(node: Node) -> Result:
    """What is shifted by its width or more is gone; the processor's own shift would leave it."""
    if not node.dtype().startswith("uint"):
        raise CannotImportError("it shifts integers with a sign")
    x, places, width = node.operand(0), node.operand(1), int(node.dtype().removeprefix("uint"))
    shift = relax.op.left_shift if node.text("direction", "") == "LEFT" else relax.op.right_shift
    last = node.scalar(width - 1)
    moved = node.call(shift, x, node.call(relax.op.minimum, places, last))
    return relax.op.where(node.call(relax.op.greater, places, last), node.scalar(0), moved)


@onnx_op("Shrink")
def _shrink(node: Node) -> Result:
    x, bias, limit = node.operand(0), float(node.options.get("bias", 0)), float(node.options.get("lambd", 0.5))
    above, below = node.call(relax.op.greater, x, node.scalar(limit)), node.call(relax.op.less, x, node.scalar(-limit))
    high = node.call(relax.op.where, above, node.call(relax.op.subtract, x, node.scalar(bias)), node.scalar(0))
    return relax.op.where(below, node.call(relax.op.add, x, node.scalar(bias)), high)
