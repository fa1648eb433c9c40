"""Lowering a quantized model to integer operators."""

from __future__ import annotations

import json

from .._tvm import relax, tvm
from ..errors import UserError
from ..graph.adopt_module import model_pass
from ..graph.decode_weights import DecodeWeights
from ..graph.module_params import get_params
from ..graph.rebuild import bindings
from ..graph.remarks import add_remarks
from ..integer.registry import is_integer_op
from ..integer.requantize import ROUNDINGS
from ..layout.convert_layout import convert_layout
from ..numbers.affine import Affine
from . import rules_layers as lowering_rules  # noqa: F401  (they register the rules)
from . import (
    rules_moves,  # noqa: F401  (they register the rules)
    rules_normalization,  # noqa: F401  (they register the rules)
    rules_reductions,  # noqa: F401  (they register the rules)
)
from .integer_core import IO_ATTR
from .walk import Lowering

SCALES_ATTR = "tvmcompress.scales"


@model_pass("LowerQDQ")
class LowerQDQ:
    """From quantize and dequantize around float operators (QDQ) to integer operators.

    Inputs and outputs stay float and in their layout; between the first quantize and the last dequantize the program
    computes in integers only, images channels-last. An operator that has no integer form stays in float, and a remark
    says which and why. The weights keep their names; a layer's requantization is `<layer>.multiplier` and
    `<layer>.shift`.

    Args:
        rounding: "double", TensorFlow Lite's, or "single"; see `requantize`.

    Raises:
        UserError: The rounding is unknown.
    """

    def __init__(self, rounding: str = "double") -> None:
        if rounding not in ROUNDINGS:
            raise UserError(f"rounding is one of {', '.join(ROUNDINGS)}, not '{rounding}'")
        self.rounding = rounding

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`; it must contain quantize operators, and parameters must be attached. One that is lowered stays."""
        return mod if is_lowered(mod) else _lower(mod, self.rounding)


def is_lowered(mod: tvm.IRModule) -> bool:
    """Whether a module consists of integer operators already: `LowerQDQ` made it, or an importer of integer models."""
    return mod.attrs is not None and (SCALES_ATTR in mod.attrs or IO_ATTR in mod.attrs)


def needs_lowering(mod: tvm.IRModule) -> bool:
    """Whether a module is in QDQ form, which builds turn into integer operators."""
    names = {getattr(getattr(value, "op", None), "name", "") for _, value in bindings(mod["main"])}
    return "relax.quantize" in names and not is_lowered(mod)


def get_scales(mod: tvm.IRModule) -> dict[str, Affine]:
    """How the integer tensors of a lowered module are to be read, by the names of their variables."""
    if mod.attrs is None or SCALES_ATTR not in mod.attrs:
        return {}
    return {name: Affine(*entry) for name, entry in json.loads(str(mod.attrs[SCALES_ATTR])).items()}


def _lower(mod: tvm.IRModule, rounding: str) -> tvm.IRModule:
    calls = [value for _, value in bindings(mod["main"]) if isinstance(value, relax.Call)]
    if not any(call.op.name == "relax.quantize" for call in calls):
        raise UserError("the model is not quantized; quantize it first")
    packed = {
        str(value.args[0].name): (get_params(mod)[value.args[1].name], int(value.attrs.group_size))
        for value in calls
        if is_integer_op(value, "int4_weight")
    }
    lowering = Lowering(convert_layout(tvm.transform.Sequential([DecodeWeights(["int4"])])(mod)), rounding, packed)
    lowered = lowering.run()
    names = {var.name for var, _ in bindings(lowered["main"])}
    scales = {name: [a.scale, a.zero_point, a.dtype] for name, a in lowering.scales.items() if name in names}
    return add_remarks(lowered.with_attr(SCALES_ATTR, json.dumps(scales)), lowering.remarks())
