"""What each layer of a model costs, and in which numbers it computes."""

from __future__ import annotations

import numpy as np

from ..compression import is_quantized
from ..model import Model
from ..passes import get_remarks
from ..passes._tvm import relax
from ..passes.graph.analysis import layers
from ..passes.graph.decode_weights import is_stored_weight
from ..passes.graph.module_params import param_vars
from ..passes.graph.rebuild import bindings
from ..passes.integer.registry import PREFIX
from ..targets.record import Record

_STAYS = " stays in float: "
_MOVES = {"reshape", "permute_dims", "flatten", "squeeze", "expand_dims", "quantize", "dequantize", "astype"}
"""What computes nothing: no reason to say in which numbers."""


class LayerFigures(Record):
    """One layer.

    Attributes:
        name: The variable that holds its result.
        op: Its operator.
        macs: Multiply-accumulates of an inference.
        params: Weights, biases and constants that it reads.
        param_bytes: Their bytes.
        precision: "float32", "float16" (weights alone), "int8", "uint8", "int16x8", "int4" (weights), or another dtype.
        why_float: Why it is in float in a quantized model; None where it is not, or where that is not known.
    """

    name: str
    op: str
    macs: int
    params: int
    param_bytes: int
    precision: str
    why_float: str | None = None


def layer_figures(model: Model) -> tuple[LayerFigures, ...]:
    """Every layer of a model that computes something, in order; stored weights count for the layer that reads them."""
    found = {layer.name: layer for layer in layers(model.module)}
    values = {var: value for var, value in bindings(model.module["main"]) if isinstance(value, relax.Call)}
    reasons = _reasons(model) if is_quantized(model) else {}
    params = set(param_vars(model.module["main"]))
    made = []
    for var, call in values.items():
        layer = found[var.name]
        op = layer.op.removeprefix("nn.").removeprefix(PREFIX)
        if is_stored_weight(call) or op in _MOVES or (not layer.macs and _is_constant(call, values, params)):
            continue
        stored = [arg for arg in call.args if isinstance(arg, relax.Var) and is_stored_weight(values.get(arg))]
        own = [layer, *(found[arg.name] for arg in stored)]
        integer = str(getattr(call.op, "name", "")).startswith(PREFIX)
        made.append(
            LayerFigures(
                name=var.name,
                op=op,
                macs=layer.macs,
                params=sum(part.params for part in own),
                param_bytes=sum(part.param_bytes for part in own),
                precision=_precision(layer.dtype, [values[arg] for arg in stored], integer),
                why_float=None if integer else reasons.get(var.name),
            )
        )
    return tuple(made)


def _is_constant(call: relax.Call, values: dict[relax.Var, relax.Call], params: set[relax.Var]) -> bool:
    """Whether a call only prepares parameters: the reshaping of a bias, the scale of a weight."""
    own = [arg for arg in call.args if isinstance(arg, relax.Var)]
    return bool(own) and all(arg in params or (arg in values and _is_constant(values[arg], values, params)) for arg in own)


def _precision(dtype: str, stored: list[relax.Call], integer: bool) -> str:
    kinds = {str(call.op.name).rpartition(".")[2] for call in stored}
    if any("int4" in kind for kind in kinds):
        return "int4"
    if integer:
        return {"int16": "int16x8"}.get(dtype, dtype)
    return "float16" if "astype" in kinds else dtype if np.dtype(dtype if dtype != "tuple" else "f4").kind != "f" else "float32"


def _reasons(model: Model) -> dict[str, str]:
    """Why layers stay in float, as the pass that lowers has said."""
    found = {}
    for remark in get_remarks(model.module):
        _, stays, reason = remark.message.partition(_STAYS)
        if stays:
            found[remark.subject] = reason
    return found
