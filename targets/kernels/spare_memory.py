"""How much workspace kernels may use for speed.

The arena must hold at least what is alive at once where most is. A kernel may take as much workspace as leaves the arena at
most half as large again.
"""

from __future__ import annotations

import numpy as np

from ...passes._tvm import Constant, relax
from ...passes.graph.module_params import input_vars
from ...passes.graph.rebuild import bindings, users
from ...passes.integer.registry import PREFIX

_MOST = 1.5


def spare_memory(main: relax.Function) -> dict[relax.Var, int]:
    """For each variable of a straight-line function the bytes of workspace that the kernel which makes it may use."""
    alive = alive_memory(main)
    limit = int(_MOST * max(alive.values(), default=0))
    return {var: max(0, limit - used) for var, used in alive.items()}


def alive_memory(main: relax.Function) -> dict[relax.Var, int]:
    """For each variable of a straight-line function the bytes of tensors that are alive while it is made, itself included."""
    values = dict(bindings(main))
    order = {var: index for index, var in enumerate(values)}
    readers = users(main)
    made = [(-1, var) for var in input_vars(main)]
    made += [(order[var], var) for var, value in values.items() if not isinstance(value, Constant)]
    alive = np.zeros(len(values) + 1, np.int64)
    for start, var in made:
        last = max((order.get(reader, len(values)) for reader in readers.get(var, ())), default=len(values))
        alive[max(start, 0) : last + 1] += _bytes(var)
    for var, value in values.items():
        # Sums lie where an operand lies, and so do convolutions that become a sum with what was made before.
        read_by = [values[reader] for reader in readers.get(var, ()) if reader in values]
        joins = len(read_by) == 1 and _is(read_by[0], "qadd") and _is(value, "qconv2d")
        if joins:
            joins = all(order.get(operand, -1) <= order[var] for operand in read_by[0].args)
        if joins or _is(value, "qadd"):
            alive[order[var]] -= _bytes(var)
    return {var: int(alive[index]) for var, index in order.items()}


def _is(value: relax.Expr, name: str) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") == PREFIX + name


def _bytes(var: relax.Var) -> int:
    if not isinstance(var.ty, relax.TensorType) or var.ty.shape is None:
        return 0
    return int(np.prod([int(dim) for dim in var.ty.shape], dtype=np.int64)) * np.dtype(str(var.ty.dtype)).itemsize
