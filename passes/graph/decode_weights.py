"""Weights that are stored in fewer bits, as the weights that layers compute with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeGuard

from .._tvm import relax, tvm
from .adopt_module import model_pass
from .interpreter import evaluate_call
from .rebuild import Rebuilder, rebuild

_STORED = {
    "tvmcompress.int4_weight": "int4",
    "tvmcompress.unpack_int4": "int4",
    "tvmcompress.unpack_2of4": "2of4",
    "relax.astype": "float16",
}
"""What is stored, by the operator that decodes it."""


def is_stored_weight(value: relax.Expr | None) -> TypeGuard[Any]:
    """Whether an expression makes weights from stored ones: int4, two of every four, or float16."""
    if not isinstance(value, relax.Call) or getattr(value.op, "name", "") not in _STORED:
        return False
    return value.op.name != "relax.astype" or (str(value.args[0].ty.dtype) == "float16" and str(value.ty.dtype) == "float32")


@model_pass("DecodeWeights")
class DecodeWeights:
    """Replace what makes weights from stored parameters by parameters of the weights' values and the stored names.

    Where a layer runs, it then takes the memory of the wider weights; the program computes the same.

    Args:
        kinds: "int4", "2of4", "float16": what is decoded.
    """

    def __init__(self, kinds: Collection[str] = ("int4", "2of4", "float16")) -> None:
        self.kinds = tuple(kinds)

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`; parameters must be attached."""
        kinds = self.kinds

        def rewrite(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
            if not is_stored_weight(value):
                return None
            values = [rebuilder.param_value(arg) for arg in value.args]
            known = [array for array in values if array is not None]
            if _STORED[value.op.name] not in kinds or len(known) < len(values):
                return None
            name = rebuilder.param_name(value.args[0]) or var.name
            return rebuilder.param(name, evaluate_call(value, known))

        return rebuild(mod, rewrite)
