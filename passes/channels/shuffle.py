"""Channel shuffles: an axis split, its parts permuted, and merged again.

Rule by rule, the split would tie the channels of all groups to each other. Seen as a whole the three operators only
reorder one axis, which is a gather, and every channel stays free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._tvm import relax
from ..graph.module_params import static_shape
from ..graph.rebuild import bindings, users
from .registry import ints


@dataclass(frozen=True)
class Shuffle:
    """A reordering of one axis.

    Attributes:
        source: The tensor that is reordered.
        axis: The axis.
        order: For each position of the result the position of the source, int64.
        inner: The variables in between, which nothing else reads.
    """

    source: relax.Var
    axis: int
    order: np.ndarray
    inner: tuple[relax.Var, relax.Var]


def find_shuffles(func: relax.Function) -> dict[relax.Var, Shuffle]:
    """The shuffles of a straight-line function by the variable of their result."""
    values = dict(bindings(func))
    readers = users(func)
    found = {}
    for var, merge in values.items():
        permute_var, permute = _operand(values, merge, "relax.reshape")
        split_var, split = _operand(values, permute, "relax.permute_dims")
        if permute_var is None or split_var is None or split is None or not _is_call(split, "relax.reshape"):
            continue
        if len(readers[permute_var]) != 1 or len(readers[split_var]) != 1 or not isinstance(split.args[0], relax.Var):
            continue
        shuffle = _shuffle(split, permute, merge, (split_var, permute_var))
        if shuffle is not None:
            found[var] = shuffle
    return found


def _is_call(expr: relax.Expr | None, name: str) -> bool:
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == name


def _operand(
    values: dict[relax.Var, relax.Expr], expr: relax.Expr | None, name: str
) -> tuple[relax.Var | None, relax.Expr | None]:
    """The variable that a call of operator `name` reads first, and that variable's value."""
    if expr is None or not _is_call(expr, name) or not isinstance(expr.args[0], relax.Var):
        return None, None
    return expr.args[0], values.get(expr.args[0])


def _shuffle(split: relax.Call, permute: relax.Call, merge: relax.Call, inner: tuple[relax.Var, relax.Var]) -> Shuffle | None:
    try:
        old, middle, new = static_shape(split.args[0]), static_shape(split), static_shape(merge)
    except ValueError:
        return None
    parts = len(middle) - len(old) + 1
    if old != new or parts < 2:
        return None
    rank = len(middle)
    axes = permute.attrs.axes
    order = list(range(rank))[::-1] if axes is None else [axis % rank for axis in ints(axes)]
    for axis, size in enumerate(old):
        stays = [index for index in range(rank) if not axis <= index < axis + parts]
        factors = middle[axis : axis + parts]
        if (
            [middle[index] for index in stays] == [dim for index, dim in enumerate(old) if index != axis]
            and int(np.prod(factors)) == size
            and all(order[index] == index for index in stays)
        ):
            grid = np.arange(size).reshape(factors)
            permuted = grid.transpose([index - axis for index in order[axis : axis + parts]])
            return Shuffle(split.args[0], axis, permuted.ravel(), inner)
    return None
