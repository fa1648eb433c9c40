"""NHWC activations and HWIO weights for float convolutions, as the schedules of x86 and of ahead-of-time builds want them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..passes._tvm import relax, tvm
from ..passes.graph.decode_weights import is_stored_weight
from ..passes.graph.module_params import get_params, param_vars
from ..passes.graph.rebuild import Rebuilder, rebuild


def channels_last(mod: tvm.IRModule) -> tvm.IRModule:
    """Convert convolutions, and what stands between them, to NHWC activations and HWIO weights."""
    params = get_params(mod)
    converted = relax.transform.ConvertLayout({"relax.nn.conv2d": ["NHWC", "HWIO"]})(mod)
    converted = relax.transform.Normalize()(converted)
    if not _has_params(converted, params):
        return mod
    return rebuild(converted, _fold_layout)


def _has_params(mod: tvm.IRModule, params: Mapping[str, np.ndarray]) -> bool:
    return all(var.name in params for var in param_vars(mod["main"]))


def _fold_layout(rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
    """Permute or reshape the value of a parameter now instead of at run time; one stored in float16 as it is stored."""
    if not isinstance(value, relax.Call) or value.op not in (_PERMUTE, _RESHAPE):
        return None
    stored = rebuilder.source_value(value.args[0])
    source = rebuilder.get(stored.args[0] if is_stored_weight(stored) else value.args[0])
    array = rebuilder.new_param_value(source)
    if array is None:
        return None
    shape = tuple(int(dim) for dim in var.ty.shape)
    if value.op == _PERMUTE:
        axes = None if value.attrs.axes is None else [int(axis) for axis in value.attrs.axes]
        array = np.transpose(array, axes)
    name = f"{source.name}.{'x'.join(str(dim) for dim in shape)}"
    folded = rebuilder.param(name, np.ascontiguousarray(array).reshape(shape))
    return relax.op.astype(folded, str(var.ty.dtype)) if is_stored_weight(stored) else folded


_PERMUTE = tvm.ir.Op.get("relax.permute_dims")
_RESHAPE = tvm.ir.Op.get("relax.reshape")
