"""Pooling: windows that are rounded up, padded on one side or dilated, counted as ONNX counts them."""

from __future__ import annotations

import math

import numpy as np

from ...passes._tvm import relax
from .convolution import cut, numbers, window_padding
from .registry import CannotImportError, Node, Result, constant, onnx_op

_MAX = {1: relax.op.nn.max_pool1d, 2: relax.op.nn.max_pool2d, 3: relax.op.nn.max_pool3d}
_AVERAGE = {1: relax.op.nn.avg_pool1d, 2: relax.op.nn.avg_pool2d, 3: relax.op.nn.avg_pool3d}


class _Window:
    """The window of one node: where it lies on each axis."""

    def __init__(self, node: Node) -> None:
        self.rank = len(node.shape()) - 2
        if self.rank not in _MAX:
            raise CannotImportError(f"it has {self.rank} axes of space; one to three are imported")
        self.kernel = [int(size) for size in node.options["kernel_shape"]]
        self.strides = numbers(node, "strides", self.rank, 1)
        self.dilation = numbers(node, "dilations", self.rank, 1)
        spans = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilation)]
        before, after = (list(pads) for pads in window_padding(node, node.shape()[2:], spans, self.strides))
        self.x = cut(node, node.operand(0), before, after)
        self.sizes = [int(dim) for dim in self.x.ty.shape][2:]
        self.before, self.asked = before, after
        self.out, self.after = [], []
        ceil = bool(node.options.get("ceil_mode", 0)) and node.text("auto_pad", "NOTSET") == "NOTSET"
        for size, low, high, span, step in zip(self.sizes, before, after, spans, self.strides):
            steps = (size + low + high - span) / step
            out = (math.ceil(steps) if ceil else math.floor(steps)) + 1
            # A window must begin inside the input or the padding before it.
            if ceil and (out - 1) * step >= size + low:
                out -= 1
            self.out.append(out)
            # Exactly what the last window covers: TVM rounds as it is told, and never counts what it adds itself.
            self.after.append(max((out - 1) * step + span - size - low, 0))
        self.spans = spans

    def pool(self, table: dict, **options: object) -> relax.Expr:
        """The call; padding is exact."""
        layout = {1: "NCW", 2: "NCHW", 3: "NCDHW"}[self.rank]
        return table[self.rank](
            self.x, self.kernel, self.strides, [*self.before, *self.after], self.dilation, layout=layout, **options
        )

    def counts(self, asked: bool) -> np.ndarray:
        """How many places each window holds: (1, 1, *out); `asked` counts the padding that was asked for."""
        found = np.ones((), np.float64)
        for size, low, high, out, step, kernel, reach in zip(
            self.sizes, self.before, self.asked, self.out, self.strides, self.kernel, self.dilation
        ):
            starts = np.arange(out)[:, None] * step + np.arange(kernel) * reach - low
            first, last = (-low, size + high) if asked else (0, size)
            found = np.multiply.outer(found, ((starts >= first) & (starts < last)).sum(1))
        return found[None, None]


@onnx_op("MaxPool")
def _max(node: Node) -> Result:
    if len(node.outputs) > 1 and node.outputs[1]:
        raise CannotImportError("the places of its maxima are read, which are not imported; export the model without MaxUnpool")
    return _Window(node).pool(_MAX)


@onnx_op("AveragePool")
def _average(node: Node) -> Result:
    window = _Window(node)
    if any(low >= span for low, span in zip([*window.before, *window.after], window.spans * 2)):
        raise CannotImportError("its padding is as large as its window")
    if not node.options.get("count_include_pad", 0):
        return window.pool(_AVERAGE, count_include_pad=False)
    pooled = window.pool(_AVERAGE, count_include_pad=True)
    counts, whole = window.counts(asked=True), math.prod(window.kernel)
    if (counts == whole).all():
        return pooled
    # What rounding up adds is not counted.
    return relax.op.multiply(node.emit(pooled), constant((whole / counts).astype(node.dtype())))


@onnx_op("LpPool")
def _lp(node: Node) -> Result:
    power = int(node.options.get("p", 2))
    window = _Window(node)
    raised = node.call(relax.op.abs, window.x)
    if power != 1:
        raised = node.call(relax.op.power, raised, node.scalar(power))
    window.x = raised
    mean = node.emit(window.pool(_AVERAGE, count_include_pad=True))
    total = relax.op.multiply(mean, node.scalar(math.prod(window.kernel)))
    return total if power == 1 else relax.op.power(node.emit(total), node.scalar(1 / power))


@onnx_op("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global(node: Node) -> Result:
    axes = list(range(2, len(node.shape())))
    if not axes:
        raise CannotImportError("it has no axes of space")
    if node.kind == "GlobalAveragePool":
        return relax.op.mean(node.operand(0), axes, True)
    if node.kind == "GlobalMaxPool":
        return relax.op.max(node.operand(0), axes, True)
    power = int(node.options.get("p", 2))
    raised = node.call(relax.op.power, node.call(relax.op.abs, node.operand(0)), node.scalar(power))
    return relax.op.power(node.call(relax.op.sum, raised, axes, True), node.scalar(1 / power))
