"""From a model module to scheduled functions: what building and tuning share, so that both see the same functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...passes._tvm import Constant, relax, tvm
from ...passes.graph.decode_weights import DecodeWeights, is_stored_weight
from ...passes.graph.module_params import detach_params, get_params, param_vars
from ...passes.graph.rebuild import Rebuilder, rebuild
from .integer import integer_core
from .kernels.select import select_kernels


def lower(mod: tvm.IRModule, features: frozenset[str] = frozenset()) -> tvm.IRModule:
    """Lower a model module to fused, unscheduled PrimFuncs called by `main`.

    Convolutions run on NHWC, where channels are contiguous; weights are laid out for that once, here, and become
    constants of `main`.

    Args:
        mod: A model module with its parameter values attached.
        features: The instruction sets that integer kernels may use, as `host.cpu_features` names them.

    Returns:
        A module whose `main` takes the model's inputs alone; of an integer model the inputs of its integer program.

    Raises:
        ValueError: No parameter values are attached.
    """
    core = tvm.transform.Sequential([DecodeWeights()])(integer_core(mod))
    mod = select_kernels(channels_last(core), features)
    mod, params = detach_params(mod)
    mod = relax.transform.BindParams("main", params)(mod)
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
    return tvm.transform.Sequential(passes)(mod)


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


def prim_funcs(mod: tvm.IRModule) -> dict[str, tvm.tirx.PrimFunc]:
    """The PrimFuncs of a lowered module by name."""
    return {var.name_hint: func for var, func in mod.functions.items() if isinstance(func, tvm.tirx.PrimFunc)}


def workload(func: tvm.tirx.PrimFunc) -> tvm.IRModule:
    """A function as the key of a tuning log: alone, named `main`, without what does not change its meaning."""
    for attr in ("op_pattern", "global_symbol"):
        if func.attrs is not None and attr in func.attrs:
            func = func.without_attr(attr)
    return tvm.IRModule({"main": func.with_attr("global_symbol", "main")})


def call_sites(mod: tvm.IRModule) -> dict[str, list[relax.Call]]:
    """The calls of every PrimFunc in `main`, by name of the function."""
    sites: dict[str, list[relax.Call]] = {}
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and value.op == _CALL_TIR:
                sites.setdefault(value.args[0].name_hint, []).append(value)
    return sites


def constant_arguments(call: relax.Call) -> dict[int, np.ndarray]:
    """The constants among the arguments of a call, by position: weights, biases, multipliers."""
    arguments = call.args[1]
    fields = list(arguments.fields) if isinstance(arguments, relax.Tuple) else [arguments]
    return {index: field.value.numpy() for index, field in enumerate(fields) if isinstance(field, Constant)}


_CALL_TIR = tvm.ir.Op.get("relax.call_tir")
