"""Convolutions and transposed convolutions, with every way in which ONNX gives their padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...passes._tvm import relax
from .registry import CannotImportError, Node, Result, constant, onnx_op

_FORWARD = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}
_BACKWARD = {1: relax.op.nn.conv1d_transpose, 2: relax.op.nn.conv2d_transpose, 3: relax.op.nn.conv3d_transpose}


def window_padding(
    node: Node, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each axis of a window that slides, from `auto_pad` or `pads`."""
    mode, rank = node.text("auto_pad", "NOTSET"), len(sizes)
    if mode == "VALID":
        return [0] * rank, [0] * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max((math.ceil(n / s) - 1) * s + span - n, 0) for n, span, s in zip(sizes, spans, strides)]
        less = [total // 2 for total in totals]
        more = [total - half for total, half in zip(totals, less)]
        return (less, more) if mode == "SAME_UPPER" else (more, less)
    pads = [int(pad) for pad in node.options.get("pads", [0] * 2 * rank)]
    return pads[:rank], pads[rank:]


def numbers(node: Node, name: str, rank: int, default: int) -> list[int]:
    """An attribute of one number an axis."""
    return [int(value) for value in node.options.get(name, [default] * rank)]


def cut(node: Node, x: relax.Expr, before: list[int], after: list[int]) -> relax.Expr:
    """Slice off what negative padding takes away; the lists are made positive."""
    rank, shape = len(before), [int(dim) for dim in x.ty.shape]
    if min(*before, *after) >= 0:
        return x
    begin = [max(-pad, 0) for pad in before]
    end = [size - max(-pad, 0) for size, pad in zip(shape[2:], after)]
    before[:], after[:] = ([max(pad, 0) for pad in pads] for pads in (before, after))
    return node.call(relax.op.strided_slice, x, list(range(2, 2 + rank)), begin, end)


def _rank(node: Node) -> int:
    rank = len(node.shape()) - 2
    if rank not in _FORWARD:
        raise CannotImportError(f"it has {rank} axes of space; one to three are imported")
    return rank


def _with_bias(node: Node, result: relax.Expr, rank: int) -> relax.Expr:
    if not node.given(2):
        return result
    bias = node.call(relax.op.reshape, node.operand(2), [1, -1, *[1] * rank])
    return relax.op.add(node.emit(result), bias)


@onnx_op("Conv")
def _convolution(node: Node) -> Result:
    rank, x = _rank(node), node.operand(0)
    strides, dilation = numbers(node, "strides", rank, 1), numbers(node, "dilations", rank, 1)
    spans = [(size - 1) * step + 1 for size, step in zip(node.shape(1)[2:], dilation)]
    before, after = window_padding(node, node.shape()[2:], spans, strides)
    x = cut(node, x, before, after)
    groups = int(node.options.get("group", 1))
    call = _FORWARD[rank](x, node.operand(1), strides, [*before, *after], dilation, groups)
    return _with_bias(node, call, rank)


@onnx_op("ConvTranspose")
def _transposed(node: Node) -> Result:
    rank = _rank(node)
    strides, dilation = numbers(node, "strides", rank, 1), numbers(node, "dilations", rank, 1)
    spans = [(size - 1) * step + 1 for size, step in zip(node.shape(1)[2:], dilation)]
    extra, sizes = numbers(node, "output_padding", rank, 0), node.shape()[2:]
    mode = node.text("auto_pad", "NOTSET")
    wanted = [int(size) for size in node.options.get("output_shape", [])][-rank:]
    if not wanted and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * step for size, step in zip(sizes, strides)]
    whole = [(size - 1) * step + span + more for size, step, span, more in zip(sizes, strides, spans, extra)]
    if wanted:
        totals = [size - out for size, out in zip(whole, wanted)]
        less = [total // 2 for total in totals]
        more = [total - half for total, half in zip(totals, less)]
        before, after = (less, more) if mode == "SAME_UPPER" else (more, less)
    else:
        before, after = window_padding(node, sizes, spans, strides)
    before, after = list(before), list(after)
    # More padding after than there is to cut off is output padding; what even that does not hold is added as zeros.
    missing = [0] * rank
    for axis in range(rank):
        if after[axis] < 0:
            extra[axis], after[axis] = extra[axis] - after[axis], 0
        if before[axis] < 0:
            missing[axis], before[axis] = -before[axis], 0
    groups = int(node.options.get("group", 1))
    # The operator adds its output padding at the end only, and less than a stride.
    fits = all(more < step for more, step in zip(extra, strides))
    late = [0] * rank if fits else extra
    call = _BACKWARD[rank](
        node.operand(0), node.operand(1), strides, [*before, *after], extra if fits else [0] * rank, dilation, groups
    )
    if any(missing) or any(late):
        width = [0, 0, 0, 0] + [int(side) for pair in zip(missing, late) for side in pair]
        call = relax.op.nn.pad(node.emit(call), width)
    return _with_bias(node, call, rank)


def filled(shape: Sequence[int], value: float, dtype: str) -> relax.Expr:
    """A constant of one value."""
    return constant(np.full(shape, value, dtype))
