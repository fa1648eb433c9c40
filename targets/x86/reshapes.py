"""Reshapes that follow each other become one, and those that change nothing none.

A single reshape is a view when a model is built; of two in a row a function would be made, which copies.
"""

from __future__ import annotations

from ...passes._tvm import relax, tvm
from ...passes.graph.module_params import static_shape
from ...passes.graph.peak_memory import VIEWS
from ...passes.graph.rebuild import Rebuilder, rebuild


def join_reshapes(mod: tvm.IRModule) -> tvm.IRModule:
    """Leave out what one reshape does as well as several in a row.

    Args:
        mod: A model module with its parameter values attached.
    """

    def rewrite(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if not _is_reshape(value):
            return None
        source = value.args[0]
        while (before := rebuilder.source_value(source)) is not None and _is_reshape(before):
            source = before.args[0]
        shape, new = static_shape(value), rebuilder.get(source)
        return new if static_shape(source) == shape else relax.op.reshape(new, shape)

    return rebuild(mod, rewrite)


def _is_reshape(value: relax.Expr) -> bool:
    return isinstance(value, relax.Call) and getattr(value.op, "name", "") in VIEWS
