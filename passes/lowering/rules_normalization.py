"""Normalizations and softmax as integer operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from .._tvm import relax
from ..graph.attention_mask import MaskedScores, masked_scores
from ..graph.module_params import static_shape
from ..integer import ops
from ..integer.log_softmax import FRACTION_BITS
from ..integer.normalize import MAX_ELEMENTS as MAX_NORMALIZED
from ..integer.normalize import MAX_FACTOR, MAX_OFFSET
from ..integer.softmax import MAX_ELEMENTS, OUTPUT_SCALE, OUTPUT_ZERO_POINT
from ..integer.wide_softmax import WIDE_MAX_ELEMENTS, WIDE_OUTPUT_SCALE, softmax_factor, softmax_tables, wsoftmax
from ..numbers.affine import Affine, Range, affine_of_range
from ..reference.registry import ints
from .walk import CannotLowerError, Integers, Lowering, Wanted, lowering_rule


@lowering_rule("nn.layer_norm")
def _layer_norm(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x, attrs = lower.integers(call.args[0]), call.attrs
    shape = static_shape(call)
    axes = sorted(axis % len(shape) for axis in ints(attrs.axes))
    small = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    factor = _vector(lower, call.args[1], small, attrs.scale, 1.0)
    offset = _vector(lower, call.args[2], small, attrs.center, 0.0)
    return _normalized(lower, x, axes, factor, offset, float(attrs.epsilon), wanted)


@lowering_rule("nn.rms_norm")
def _rms_norm(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x, shape = lower.integers(call.args[0]), static_shape(call)
    axes = sorted(axis % len(shape) for axis in ints(call.attrs.axes))
    small = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    factor = _vector(lower, call.args[1], small, True, 1.0)
    return _normalized(lower, x, axes, factor, np.zeros(small), float(call.attrs.epsilon), wanted, centred=False)


@lowering_rule("nn.instance_norm", "nn.group_norm")
def _group_norm(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x, attrs, shape = lower.integers(call.args[0]), call.attrs, static_shape(call)
    rank = len(shape)
    channel = int(attrs.channel_axis) % rank
    axes = sorted(axis % rank for axis in ints(attrs.axes))
    groups = int(attrs.num_groups) if call.op.name == "relax.nn.group_norm" else shape[channel]
    # The channels of a group on an axis of their own.
    split = (*shape[:channel], groups, shape[channel] // groups, *shape[channel + 1 :])
    axes = [channel + 1, *(axis + (axis > channel) for axis in axes)]
    small = [size if axis in (channel, channel + 1) else 1 for axis, size in enumerate(split)]
    factor = _vector(lower, call.args[1], small, attrs.scale, 1.0)
    offset = _vector(lower, call.args[2], small, attrs.center, 0.0)
    apart = lower.emit(relax.op.reshape(x.expr, split), f"{wanted.name}.groups")
    epsilon = float(attrs.epsilon)
    result = _normalized(lower, Integers(apart, x.affine), sorted(axes), factor, offset, epsilon, wanted)
    return relax.op.reshape(lower.emit(result, f"{wanted.name}.groups"), shape)


def _vector(lower: Lowering, expr: relax.Expr, shape: Sequence[int], used: bool, fill: float) -> np.ndarray:
    """A scale or shift in the shape in which it broadcasts."""
    if not used:
        return np.full(shape, fill)
    known = lower.real_constant(expr)
    if known is None:
        raise CannotLowerError("its scale or its shift is not constant")
    return known[0].reshape(shape)


def _normalized(
    lower: Lowering,
    x: Integers,
    axes: Sequence[int],
    factor: np.ndarray,
    offset: np.ndarray,
    epsilon: float,
    wanted: Wanted,
    centred: bool = True,
) -> relax.Expr:
    shape = static_shape(x.expr)
    count = math.prod(shape[axis] for axis in axes)
    if count > MAX_NORMALIZED:
        raise CannotLowerError(f"it is over more than {MAX_NORMALIZED} elements")
    # The real value of one step of the factor, as large as the largest factor and the largest offset need it.
    fraction = 2.0 ** -ops.fraction_bits(count)
    step = max(np.abs(factor).max() / MAX_FACTOR, np.abs(offset).max() / (MAX_OFFSET * fraction), 1e-30)
    return ops.qnormalize(
        x.expr,
        lower.param(f"{wanted.name}.factor", np.rint(factor / step).astype(np.int16)),
        lower.param(f"{wanted.name}.offset", np.rint(offset / (step * fraction)).astype(np.int32)),
        axes=axes,
        centred=centred,
        input_zero_point=x.affine.zero_point,
        epsilon=ops.integer_epsilon(epsilon, x.affine.scale, count),
        **lower.requantization(wanted, step * fraction),
    )


@lowering_rule("nn.log_softmax")
def _log_softmax(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x, shape = lower.integers(call.args[0]), static_shape(call)
    axis, last = int(call.attrs.axis) % len(shape), len(shape) - 1
    if shape[axis] > MAX_ELEMENTS:
        raise CannotLowerError(f"it is over more than {MAX_ELEMENTS} elements")
    requantization = lower.requantization(wanted, 2.0**-FRACTION_BITS)
    tables = (
        lower.param(f"{wanted.name}.exponentials", ops.exponentials(x.affine.scale)),
        lower.param(f"{wanted.name}.differences", ops.differences(x.affine.scale)),
        lower.param("logarithms", ops.LOGARITHMS),
    )

    def made(expr: relax.Expr) -> relax.Expr:
        return ops.qlogsoftmax(expr, *tables, **requantization)

    return made(x.expr) if axis == last else _along_last(lower, x.expr, axis, made, wanted.name)


def _along_last(lower: Lowering, x: relax.Expr, axis: int, make: Callable[[relax.Expr], relax.Expr], name: str) -> relax.Expr:
    """An operator over the last axis, applied over another one."""
    order = list(range(len(static_shape(x))))
    order[axis], order[-1] = order[-1], axis
    moved = lower.emit(relax.op.permute_dims(x, order), f"{name}.moved")
    return relax.op.permute_dims(lower.emit(make(moved), f"{name}.moved"), order)


@lowering_rule("nn.softmax", wide=True)
def _softmax(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    masked = None
    if not lower.is_integers(call.args[0]):
        masked = masked_scores(call, lower.source, lower.build.param_value)
    x = lower.integers(masked.scores if masked is not None else call.args[0])
    shape = static_shape(call)
    axis, last = int(call.attrs.axis) % len(shape), len(shape) - 1
    if "int16" in (x.affine.dtype, wanted.affine.dtype):
        if masked is not None or axis != last or shape[axis] > WIDE_MAX_ELEMENTS:
            raise CannotLowerError("int16 softmax has no mask and is over a short last axis")
        return _wide_softmax(lower, x, wanted)
    if shape[axis] > MAX_ELEMENTS:
        raise CannotLowerError(f"it is over more than {MAX_ELEMENTS} elements")
    table = lower.param(f"{wanted.name}.exponentials", ops.exponentials(x.affine.scale))
    if masked is not None:
        made = ops.qmaskedsoftmax(x.expr, _condition(lower, masked, wanted.name), table)
    elif axis == last:
        made = ops.qsoftmax(x.expr, table)
    else:
        made = _along_last(lower, x.expr, axis, lambda expr: ops.qsoftmax(expr, table), wanted.name)
    return lower.then_rescaled(made, Affine(OUTPUT_SCALE, OUTPUT_ZERO_POINT), wanted)


def _wide_softmax(lower: Lowering, x: Integers, wanted: Wanted) -> relax.Expr:
    if x.affine.dtype != "int16":
        widened = Affine(x.affine.scale, 0, "int16")
        made = lower.rescaled(x, Wanted(widened, -np.inf, np.inf, wanted.name))
        x = Integers(lower.emit(made, f"{wanted.name}.widened"), widened)
    try:
        multiplier, shift = softmax_factor(x.affine.scale)
    except ValueError as error:
        raise CannotLowerError(f"its scale does not fit: {error}") from None
    tables = [lower.param(f"softmax.{name}", table) for name, table in zip(("exponentials", "reciprocals"), softmax_tables())]
    made = wsoftmax(x.expr, *tables, multiplier=multiplier, shift=shift)
    return lower.then_rescaled(made, Affine(WIDE_OUTPUT_SCALE, 0, "int16"), wanted)


def _condition(lower: Lowering, masked: MaskedScores, name: str) -> relax.Expr:
    if isinstance(masked.mask, np.ndarray):
        return lower.param(f"{name}.mask", masked.mask)
    constant = lower.build.param_value(masked.mask)
    if constant is not None:
        return lower.param(f"{name}.mask", constant if masked.keeps == "true" else ~constant)
    return lower.emit(masked.condition(lower.plain(masked.mask)), f"{name}.mask")


@lowering_rule("nn.prelu")
def _prelu(lower: Lowering, var: relax.Var, call: relax.Call, wanted: Wanted) -> relax.Expr:
    x = lower.integers(call.args[0])
    known = lower.real_constant(call.args[1])
    if known is None:
        raise CannotLowerError("its slopes are not constant")
    slopes, name = known
    shape = [1] * len(static_shape(call))
    shape[int(call.attrs.axis)] = -1
    affine = affine_of_range(Range(float(slopes.min()), float(slopes.max())))
    negative = lower.factor(x.affine.scale * affine.scale / wanted.affine.scale)
    return ops.qprelu(
        x.expr,
        lower.param(name, affine.quantize(slopes).reshape(shape)),
        input_zero_point=x.affine.zero_point,
        slope_zero_point=affine.zero_point,
        negative_multiplier=negative[0],
        negative_shift=negative[1],
        **lower.requantization(wanted, x.affine.scale),
    )
