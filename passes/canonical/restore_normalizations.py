"""Normalizations that exporters have taken apart become one operator again.

One operator is one kernel, and one rule of pruning: its parts lose sight of the fact that a removed channel is zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.module_params import static_shape
from ..graph.rebuild import Rebuilder, rebuild, users

_NORMS = ("relax.nn.layer_norm", "relax.nn.group_norm")


@model_pass("RestoreNormalizations")
class RestoreNormalizations:
    """Recognize group normalization and layer normalization, with their scales and shifts.

    - An instance normalization between two reshapes is a group normalization: before opset 18 ONNX has no other way to
      say it.
    - (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) is a layer normalization: the same before opset 17.

    Parameters must be attached, and scalars inline (see `Canonicalize`).
    """

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        return _with_scale_and_shift(rebuild(mod, _restore))


def _restore(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
    if not isinstance(value, relax.Call):
        return None
    if value.op.name == "relax.reshape":
        return _group_norm(build, value)
    if value.op.name == "relax.divide":
        return _layer_norm(build, value)
    return None


def _operand(build: Rebuilder, expr: relax.Expr | None, *names: str) -> relax.Call | None:
    """The call that a variable is bound to, where it is one of the operators `names`."""
    value = build.source_value(expr) if expr is not None else None
    return value if isinstance(value, relax.Call) and value.op.name.removeprefix("relax.") in names else None


def _group_norm(build: Rebuilder, merge: relax.Call) -> relax.Expr | None:
    norm = _operand(build, merge.args[0], "nn.instance_norm")
    split = _operand(build, norm.args[0], "reshape") if norm is not None else None
    if norm is None or split is None:
        return None
    shape, grouped = static_shape(split.args[0]), static_shape(split)
    if shape != static_shape(merge) or len(shape) < 3 or len(grouped) != 3 or grouped[0] != shape[0]:
        return None
    count = grouped[1]
    scale, shift = build.param_value(norm.args[1]), build.param_value(norm.args[2])
    if [int(axis) for axis in norm.attrs.axes] != [2] or scale is None or shift is None or shape[1] % count:
        return None
    vectors = [relax.const(np.repeat(vector, shape[1] // count)) for vector in (scale, shift)]
    axes = list(range(2, len(shape)))
    epsilon = float(norm.attrs.epsilon)
    return relax.op.nn.group_norm(build.get(split.args[0]), *vectors, count, 1, axes, epsilon)


def _layer_norm(build: Rebuilder, quotient: relax.Call) -> relax.Expr | None:
    centred, root = _operand(build, quotient.args[0], "subtract"), _operand(build, quotient.args[1], "sqrt")
    total = _operand(build, root.args[0], "add") if root is not None else None
    variance = _operand(build, total.args[0], "mean") if total is not None else None
    square = _operand(build, variance.args[0], "power", "multiply", "square") if variance is not None else None
    mean = _operand(build, centred.args[1], "mean") if centred is not None else None
    if centred is None or total is None or variance is None or square is None or mean is None:
        return None
    epsilon = build.param_value(total.args[1])
    if epsilon is None or epsilon.size != 1 or not _is_square(build, square, centred):
        return None
    data = centred.args[0]
    axes = [_axes(call) for call in (mean, variance)]
    if not mean.args[0].same_as(data) or axes[0] is None or axes[0] != axes[1]:
        return None
    shape, dtype = static_shape(data), str(quotient.ty.dtype)
    whole = [shape[axis] for axis in axes[0]]
    plain = (relax.const(np.ones(whole, dtype)), relax.const(np.zeros(whole, dtype)))
    return relax.op.nn.layer_norm(build.get(data), *plain, axes[0], float(epsilon.reshape(())))


def _is_square(build: Rebuilder, square: relax.Call, centred: relax.Call) -> bool:
    """Whether it is the square of the centred values, which some exporters compute twice."""

    def same(expr: relax.Expr) -> bool:
        call = _operand(build, expr, "subtract")
        return call is not None and all(a.same_as(b) for a, b in zip(call.args, centred.args))

    if not same(square.args[0]):
        return False
    if square.op.name == "relax.power":
        exponent = build.param_value(square.args[1])
        return exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2
    return square.op.name == "relax.square" or same(square.args[1])


def _axes(mean: relax.Call) -> list[int] | None:
    """The axes of a mean that keeps them."""
    if not mean.attrs.keepdims or mean.attrs.axis is None:
        return None
    rank = len(static_shape(mean))
    return sorted(int(axis) % rank for axis in mean.attrs.axis)


def _with_scale_and_shift(mod: tvm.IRModule) -> tvm.IRModule:
    """Let normalizations take in the scale and the shift behind them."""
    readers = users(mod["main"])

    def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if not isinstance(value, relax.Call) or value.op.name not in ("relax.multiply", "relax.add"):
            return None
        scaled, shift = value, None
        if value.op.name == "relax.add":
            product = _operand(build, value.args[0], "multiply")
            if product is None or len(readers[value.args[0]]) != 1:
                return None
            scaled, shift = product, value.args[1]
        norm = _operand(build, scaled.args[0], *(name.removeprefix("relax.") for name in _NORMS))
        if norm is None or len(readers[scaled.args[0]]) != 1 or not _is_plain(norm):
            return None
        scale = _vector(build, readers, norm, scaled.args[1])
        offset = norm.args[2] if shift is None else _vector(build, readers, norm, shift)
        if scale is None or offset is None:
            return None
        return relax.Call(norm.op, [build.get(norm.args[0]), scale, offset], norm.attrs, norm.ty_args)

    return rebuild(mod, rewrite)


def _is_plain(norm: relax.Call) -> bool:
    """Whether a normalization neither scales nor shifts yet."""
    scale, shift = norm.args[1:3]
    if not isinstance(scale, Constant) or not isinstance(shift, Constant):
        return False
    return bool((scale.value.numpy() == 1).all() and (shift.value.numpy() == 0).all())


def _vector(
    build: Rebuilder, readers: Mapping[relax.Var, list[relax.Var]], norm: relax.Call, expr: relax.Expr
) -> relax.Expr | None:
    """A parameter in the shape that the normalization takes; None where it differs along other axes, or is shared."""
    value, name = build.param_value(expr), build.param_name(expr)
    shape = static_shape(norm)
    group_norm = norm.op.name == "relax.nn.group_norm"
    axes = [int(norm.attrs.channel_axis)] if group_norm else [int(axis) % len(shape) for axis in norm.attrs.axes]
    if value is None or name is None or len(readers[expr]) != 1 or value.ndim > len(shape):
        return None
    if (1,) * (len(shape) - value.ndim) + value.shape != tuple(size if axis in axes else 1 for axis, size in enumerate(shape)):
        return None
    return build.param(name, value.reshape([shape[axis] for axis in axes]))
