"""Functions of one value: which operators act on every element by itself, and what a chain of them computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .._tvm import Constant, relax
from ..reference import Context, reference_of
from .interpreter import plain_value
from .module_params import static_shape

_UNARY_NAMES = """
nn.relu nn.relu6 nn.silu nn.gelu nn.gelu_tanh nn.selu nn.leakyrelu nn.softplus sigmoid tanh exp log sqrt rsqrt erf abs
negative floor ceil round sign sin cos square clip isnan isinf isfinite logical_not
"""
_UNARY = {f"relax.{name}" for name in _UNARY_NAMES.split()}
_COMBINING_NAMES = """
add subtract multiply divide maximum minimum power less less_equal greater greater_equal equal not_equal logical_and
logical_or where
"""
_COMBINING = {f"relax.{name}" for name in _COMBINING_NAMES.split()}
POINTWISE = _UNARY | _COMBINING | {"relax.astype"}
"""The operators that act on every element by itself."""

Source = Callable[[relax.Expr], "relax.Expr | None"]


def scalar_value(expr: relax.Expr, params: Mapping[relax.Var, np.ndarray]) -> np.ndarray | None:
    """The value of a constant or parameter with one element, as a 0-d array; otherwise None."""
    value = params.get(expr) if isinstance(expr, relax.Var) else None
    if isinstance(expr, Constant):
        value = expr.value.numpy()
    return value.reshape(()) if value is not None and value.size == 1 else None


def pointwise_operands(expr: relax.Expr, params: Mapping[relax.Var, np.ndarray]) -> list[relax.Expr] | None:
    """The tensor operands, all of the call's shape, of a call that acts on every element by itself; otherwise None."""
    if not isinstance(expr, relax.Call):
        return None
    name = getattr(expr.op, "name", "")
    if name in _UNARY:
        return [expr.args[0]]
    if name == "relax.astype":
        return [expr.args[0]] if str(expr.ty.dtype) in ("float32", "bool") else None
    if name not in _COMBINING:
        return None
    tensors = [arg for arg in expr.args if scalar_value(arg, params) is None]
    if any((isinstance(arg, relax.Var) and arg in params) or isinstance(arg, Constant) for arg in tensors):
        return None
    same = all(static_shape(arg) == static_shape(expr) for arg in tensors)
    return tensors if tensors and same else None


def evaluate(
    expr: relax.Expr, root: relax.Var, values: np.ndarray, source: Source, params: Mapping[relax.Var, np.ndarray]
) -> np.ndarray:
    """What a chain of pointwise operators makes of given values of its root.

    Args:
        expr: The end of the chain.
        root: Its one tensor.
        values: float32, values of the root.
        source: What a variable is bound to.
        params: Values of parameters.

    Returns:
        float32, the shape of `values`.
    """
    if expr.same_as(root):
        return values
    scalar = scalar_value(expr, params)
    if scalar is not None:
        return scalar
    value = source(expr) if isinstance(expr, relax.Var) else expr
    if isinstance(value, relax.Var):
        return evaluate(value, root, values, source, params)
    if not isinstance(value, relax.Call):
        raise ValueError(f"{expr} is no function of {root.name} alone")
    reference = reference_of(value.op.name)
    if reference is None:
        raise ValueError(f"{value.op.name} has no reference implementation in NumPy")
    args = [
        evaluate(arg, root, values, source, params) if isinstance(arg, (relax.Var, relax.Call)) else plain_value(arg)
        for arg in value.args
    ]
    with np.errstate(all="ignore"):
        return np.asarray(reference(args, Context(value)), np.float32)
