"""Means, sums and pools as integer operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._tvm import relax
from ..graph.module_params import static_shape
from ..integer import ops
from ..integer.pool import mean_multiplier
from ..integer.requantize import INT32_MAX
from ..reference.registry import ints
from .walk import CannotLowerError, Integers, Lowering, Wanted, lowering_rule


@lowering_rule("mean", "sum", wide=True)
def _mean(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    shape = static_shape(call.args[0])
    axes = range(len(shape)) if call.attrs.axis is None else ints(call.attrs.axis)
    places = sorted(axis % len(shape) for axis in axes)
    divided = call.op.name == "relax.mean"
    return _integer_mean(lower, x, shape, places, bool(call.attrs.keepdims), wanted, divided)


def _integer_mean(
    lower: Lowering,
    x: Integers,
    shape: Sequence[int],
    axes: Sequence[int],
    keepdims: bool,
    wanted: Wanted,
    divided: bool = True,
) -> relax.Expr:
    """A mean, or if it is not divided by the number of elements a sum."""
    count = int(np.prod([shape[axis] for axis in axes]))
    if count * (255 if x.affine.dtype == "int8" else 1 << 15) > INT32_MAX:
        raise CannotLowerError(f"a sum of {count} elements could leave 32 bits")
    multiplier, shift = lower.factor(x.affine.scale / wanted.affine.scale)
    if divided and lower.rounding == "double":
        multiplier, shift = mean_multiplier(multiplier, shift, count)
    elif divided:
        multiplier, shift = lower.factor(x.affine.scale / wanted.affine.scale / count)
    return ops.qmean(
        x.expr,
        axes=list(axes),
        keepdims=keepdims,
        input_zero_point=x.affine.zero_point,
        multiplier=multiplier,
        shift=shift,
        **lower.result(wanted),
    )


@lowering_rule(*(f"nn.adaptive_avg_pool{rank}d" for rank in (1, 2, 3)), wide=True)
def _adaptive_avg_pool(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    shape, out = static_shape(call.args[0]), static_shape(call)
    if not str(call.attrs.layout).endswith("C") or any(dim != 1 for dim in out[1:-1]):
        raise CannotLowerError("it is not a mean over the whole image")
    return _integer_mean(lower, lower.integers(call.args[0]), shape, range(1, len(shape) - 1), True, wanted)


@lowering_rule(*(f"nn.{kind}_pool{rank}d" for kind in ("avg", "max") for rank in (1, 2, 3)), wide=True)
def _pool(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    attrs, average = call.attrs, "avg" in call.op.name
    if not str(attrs.layout).endswith("C") or any(int(d) != 1 for d in attrs.dilation):
        raise CannotLowerError("its layout or dilation is not supported")
    x, shape = lower.integers(call.args[0]), static_shape(call.args[0])
    spatial, out = list(shape[1:-1]), list(static_shape(call)[1:-1])
    kernel, strides, padding = ints(attrs.pool_size), ints(attrs.strides), ints(attrs.padding)
    if average and kernel == spatial and not any(padding) and x.affine != wanted.affine:
        return _integer_mean(lower, x, shape, range(1, len(shape) - 1), True, wanted)
    before, after = padding[: len(spatial)], padding[len(spatial) :]
    # Rounding up the size of the result is padding at the end.
    ends = [
        max(last, (o - 1) * s + k - size - first)
        for last, o, s, k, size, first in zip(after, out, strides, kernel, spatial, before)
    ]
    expr = x.expr
    if average and attrs.count_include_pad and any(padding):
        if ends != after:
            raise CannotLowerError("its padding counts, and its size is rounded up")
        width = [0, 0, *(pad for pair in zip(before, ends) for pad in pair), 0, 0]
        expr = lower.emit(ops.qpad(expr, pad_width=width, value=x.affine.zero_point), f"{wanted.name}.pad")
        before = ends = [0] * len(spatial)
    same = x.affine == wanted.affine
    limits = wanted.limits if same else wanted.affine.limits
    pooled = _pooled(lower, expr, average, kernel, strides, before, ends, limits, wanted.name)
    return pooled if same else lower.then_rescaled(pooled, x.affine, wanted)


def _pooled(
    lower: Lowering,
    x: relax.Expr,
    average: bool,
    kernel: Sequence[int],
    strides: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    limits: tuple[int, int],
    name: str,
) -> relax.Expr:
    """Pooling of a signal, an image or a volume, channels last, by the pooling of images."""
    make = ops.qavgpool if average else ops.qmaxpool
    n, *spatial, c = static_shape(x)
    qmin, qmax = limits

    def plane(image: relax.Expr, axes: slice, size: int = 2) -> relax.Expr:
        ones, zeros = [1] * (size - len(kernel[axes])), [0] * (size - len(kernel[axes]))
        pads = [*zeros, *before[axes], *zeros, *after[axes]]
        geometry = {"pool_size": [*ones, *kernel[axes]], "strides": [*ones, *strides[axes]], "padding": pads}
        return make(image, **geometry, qmin=qmin, qmax=qmax)

    if len(spatial) == 2:
        return plane(x, slice(0, 2))
    if len(spatial) == 1:
        row = lower.emit(relax.op.reshape(x, (n, 1, *spatial, c)), f"{name}.row")
        found = lower.emit(plane(row, slice(0, 1)), f"{name}.row")
        return relax.op.reshape(found, (n, static_shape(found)[2], c))
    if average:
        raise CannotLowerError("it is a mean over a part of a volume")
    # The largest of the largest of each slice.
    depth, height, width = spatial
    slices = lower.emit(relax.op.reshape(x, (n * depth, height, width, c)), f"{name}.slices")
    found = lower.emit(plane(slices, slice(1, 3)), f"{name}.slices")
    rows, columns = static_shape(found)[1:3]
    line = lower.emit(relax.op.reshape(found, (n, 1, depth, rows * columns * c)), f"{name}.line")
    found = lower.emit(plane(line, slice(0, 1)), f"{name}.line")
    return relax.op.reshape(found, (n, static_shape(found)[2], rows, columns, c))
