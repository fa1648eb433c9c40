"""Which values the integer inputs of a network may take: ids look rows of a table up."""

from __future__ import annotations

import math

import numpy as np

from .._tvm import Constant, relax, tvm
from .module_params import input_vars, static_shape
from .rebuild import bindings

_NAMES = ("astype", "reshape", "flatten", "expand_dims", "squeeze", "permute_dims", "strided_slice", "broadcast_to")
_MOVES = {f"relax.{name}" for name in _NAMES}


def index_limits(mod: tvm.IRModule) -> dict[str, int]:
    """For each integer input of `main` whose values look something up: how many entries there are; ids are below that.

    An id that is counted from the end, a negative one, is allowed by ONNX, too. Ids of which the network masks some, as a loss
    does with its `ignore_index`, are not limited.
    """
    main = mod["main"]
    values = dict(bindings(main))
    inputs = set(input_vars(main))
    found: dict[str, int] = {}

    def follow(expr: relax.Expr, size: int) -> None:
        if isinstance(expr, relax.Tuple):
            for field in expr.fields:
                follow(field, size)
        if not isinstance(expr, relax.Var):
            return
        if expr in inputs:
            found[expr.name] = min(size, found.get(expr.name, size))
            return
        value = values.get(expr)
        if isinstance(value, relax.Var):
            follow(value, size)
        if not isinstance(value, relax.Call):
            return
        name = getattr(value.op, "name", "")
        if name in _MOVES or name == "relax.concat":
            follow(value.args[0], size)
        elif name == "relax.where" and _wraps(value, values):
            follow(value.args[2], size)
        elif name == "relax.add" and isinstance(value.args[1], Constant) and value.args[1].value.numpy().size == 1:
            follow(value.args[0], size - int(value.args[1].value.numpy().reshape(())))

    for value in values.values():
        if isinstance(value, relax.Call) and value.op.name in ("relax.take", "relax.gather_elements"):
            shape, axis = static_shape(value.args[0]), value.attrs.axis
            follow(value.args[1], shape[int(axis)] if axis is not None else math.prod(shape))
    return found


def _wraps(choice: relax.Call, values: dict[relax.Var, relax.Expr]) -> bool:
    """Whether a `where` counts negative ids from the end: where(x < 0, x + size, x)."""
    asked = values.get(choice.args[0])
    return (
        isinstance(asked, relax.Call)
        and asked.op.name == "relax.less"
        and asked.args[0].same_as(choice.args[2])
        and isinstance(asked.args[1], Constant)
        and not asked.args[1].value.numpy().any()
    )


def integer_range(dtype: np.dtype, limit: int | None) -> tuple[int, int]:
    """The lowest and highest value that an integer input may be given where there is no data.

    Indices of entries that there are; bytes and 16 bits over their whole range; 0 and 1 for wider integers, as masks are.

    Args:
        dtype: Of the input.
        limit: What `index_limits` says of it.
    """
    info = np.iinfo(dtype)
    if limit is not None:
        return 0, min(limit - 1, int(info.max))
    return (int(info.min), int(info.max)) if dtype.itemsize <= 2 else (0, 1)
