"""Masks of attention: which elements a softmax leaves out, however the exporter has said it.

A masked score is minus infinity, or so low that its exponential is zero. No scale of 8 bits holds such a score together
with the others, so the mask is taken out of the computation: the softmax is one of the elements that are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._tvm import relax
from .module_params import static_shape

# Scores below this are masked ones: the exponential of what is left of a difference of that size is zero.
LOW = -1000.0

Source = Callable[[relax.Expr], "relax.Expr | None"]
Value = Callable[[relax.Expr], "np.ndarray | None"]


@dataclass(frozen=True)
class MaskedScores:
    """The operand of a softmax as scores and a mask.

    Attributes:
        scores: Before the mask was applied.
        mask: A boolean or integer tensor, or a boolean array.
        keeps: Which of its values keep an element: "true", "false", "positive" or "nonpositive".
        made: The tensors that were made of the mask, and that nothing needs any more.
    """

    scores: relax.Var
    mask: relax.Expr | np.ndarray
    keeps: str
    made: tuple[relax.Expr, ...] = ()

    def condition(self, mask: relax.Expr) -> relax.Expr:
        """The boolean tensor that is true for the elements kept, from the mask in the function where it is used."""
        flag = str(mask.ty.dtype) == "bool"
        if self.keeps == "true" or (self.keeps == "positive" and flag):
            return mask
        if flag:
            return relax.op.logical_not(mask)
        compare = relax.op.greater if self.keeps == "positive" else relax.op.less_equal
        return compare(mask, relax.const(0, str(mask.ty.dtype)))


def masked_scores(softmax: relax.Call, source: Source, value: Value) -> MaskedScores | None:
    """The scores and the mask that a softmax over the last axis is taken of; None where nothing is masked.

    Args:
        softmax: Its call.
        source: What a variable is bound to.
        value: The value of a parameter or constant, None for anything else.
    """
    call, shape = source(softmax.args[0]), static_shape(softmax)
    if not isinstance(call, relax.Call) or int(softmax.attrs.axis) % len(shape) != len(shape) - 1:
        return None
    found = None
    if call.op.name == "relax.where":
        found = _choice(call, value)
    elif call.op.name == "relax.add":
        for scores, mask in (call.args, list(call.args)[::-1]):
            found = found or _sum(scores, mask, source, value)
    # The mask must not make the scores larger.
    return found if found is not None and static_shape(found.scores) == shape else None


def _is_low(array: np.ndarray | None) -> bool:
    return array is not None and array.size > 0 and bool((array <= LOW).all())


def _choice(call: relax.Call, value: Value) -> MaskedScores | None:
    condition, first, second = call.args
    if _is_low(value(second)) and isinstance(first, relax.Var) and value(first) is None:
        return MaskedScores(first, condition, "true")
    if _is_low(value(first)) and isinstance(second, relax.Var) and value(second) is None:
        return MaskedScores(second, condition, "false")
    return None


def _sum(scores: relax.Expr, mask: relax.Expr, source: Source, value: Value) -> MaskedScores | None:
    if not isinstance(scores, relax.Var) or value(scores) is not None:
        return None
    array = value(mask)
    if array is not None:
        kept = array > LOW
        return MaskedScores(scores, kept, "true") if not kept.all() and (array[kept] == 0).all() else None
    product = source(mask)
    if not isinstance(product, relax.Call):
        return None
    if product.op.name == "relax.where":
        ends = [value(arg) for arg in product.args[1:]]
        for keeps, low, zero in (("true", ends[1], ends[0]), ("false", ends[0], ends[1])):
            if _is_low(low) and zero is not None and (zero == 0).all():
                return MaskedScores(scores, product.args[0], keeps, (mask,))
        return None
    if product.op.name != "relax.multiply" or not _is_low(value(product.args[1])):
        return None
    return _counted(scores, product.args[0], (mask, product.args[0]), source, value)


def _counted(
    scores: relax.Var, flags: relax.Expr, made: tuple[relax.Expr, ...], source: Source, value: Value
) -> MaskedScores | None:
    """Flags, 1 where an element is masked, that were integers or booleans: i or 1 - i as a float."""
    call, keeps = source(flags), "nonpositive"
    if isinstance(call, relax.Call) and call.op.name == "relax.subtract":
        one = value(call.args[0])
        if one is None or not (one == 1).all():
            return None
        made = (*made, call.args[1])
        call, keeps = source(call.args[1]), "positive"
    if not isinstance(call, relax.Call) or call.op.name != "relax.astype":
        return None
    dtype = str(call.args[0].ty.dtype)
    return MaskedScores(scores, call.args[0], keeps, made) if dtype == "bool" or "int" in dtype else None
