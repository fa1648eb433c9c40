"""Chains of pointwise operators on one tensor of integers, as tables."""

from __future__ import annotations

import numpy as np

from .._tvm import relax
from ..graph.pointwise import evaluate, pointwise_operands
from ..integer.ops import interpolated_table, qlut
from ..numbers.affine import Affine, Range, affine_of_range
from .integers import CannotLowerError, KnownIntegers, Wanted

_INFINITE = float("inf")


def pointwise_root(known: KnownIntegers, x: relax.Expr) -> relax.Var | None:
    """The one tensor known as integers that a chain of pointwise operators ends in; None when there is none."""
    if known.is_integers(x):
        return x
    call = known.source(x)
    operands = pointwise_operands(call, known.params) if call is not None else None
    if operands is None:
        return None
    roots = {pointwise_root(known, operand) for operand in operands}
    return roots.pop() if len(roots) == 1 else None


def pointwise_values(known: KnownIntegers, x: relax.Expr, root: relax.Var) -> np.ndarray:
    """What a chain of pointwise operators makes of all values of its int8 root, float32 (256,)."""
    inputs = known.integers(root).affine.dequantize(np.arange(-128, 128, dtype=np.int16))
    return evaluate(x, root, inputs, known.source, known.params)


def pointwise_table(known: KnownIntegers, x: relax.Var, affine: Affine) -> relax.Expr | None:
    """A chain of pointwise operators on one tensor, as a table; None when it is no such chain.

    Raises:
        CannotLowerError: Some value of its operand has no finite result.
    """
    root = pointwise_root(known, x)
    if root is None or root.same_as(x):
        return None
    tensor = known.integers(root)
    if tensor.affine.dtype == "int16":
        return _wide_table(known, x, root, affine)
    table = known.param(f"{x.name}.table", affine.quantize(_finite(pointwise_values(known, x, root))))
    return qlut(tensor.expr, table)


def _wide_table(known: KnownIntegers, x: relax.Var, root: relax.Var, affine: Affine) -> relax.Expr:
    """A table with interpolation; an int8 result is requantized from one of all 16 bits."""
    tensor = known.integers(root)
    steps = np.arange(-32768, 32769, 64).astype(np.float32) * np.float32(tensor.affine.scale)
    values = _finite(evaluate(x, root, steps, known.source, known.params))
    fine = affine
    if affine.dtype != "int16":
        low, high = ((end - affine.zero_point) * affine.scale for end in affine.limits)
        fine = affine_of_range(Range(low, high), "int16", symmetric=True)
    table = known.param(f"{x.name}.table", interpolated_table(values, fine.scale))
    found = qlut(tensor.expr, table)
    return found if fine == affine else known.then_rescaled(found, fine, Wanted(affine, -_INFINITE, _INFINITE, x.name))


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise CannotLowerError("it is not finite for all values of its operand")
    return values
