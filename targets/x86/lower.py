"""From a model module to scheduled functions: what building and tuning share, so that both see the same functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...passes._tvm import Constant, relax, tvm
from ...passes.graph.decode_weights import DecodeWeights
from ...passes.graph.module_params import detach_params
from ..channels_last import channels_last
from ..legalize import LEGALIZE
from .integer import integer_core
from .kernels.floating import lanes_of
from .kernels.functions import FUNCTIONS
from .kernels.intrinsics import LANES_ANNOTATION
from .kernels.lookup import legalize_lookup
from .kernels.planes import legalize_planes
from .kernels.rows import ROWS
from .kernels.select import select_kernels
from .kernels.statistics import legalize_statistics
from .kernels.tiles import legalize as legalize_tiles
from .layer import VECTOR
from .reshapes import join_reshapes


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
    mod = join_reshapes(select_kernels(channels_last(core), features))
    mod, params = detach_params(mod)
    mod = relax.transform.BindParams("main", params)(mod)
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.backend.DispatchSortScan(),
        relax.transform.LegalizeOps(_DEFINITIONS),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
    return _with_lanes(tvm.transform.Sequential(passes)(mod), lanes_of(features))


_BUILT = {
    "relax.permute_dims": legalize_planes,
    "tvmcompress.x86_tile_conv2d": legalize_tiles,
    "tvmcompress.x86_qlut": legalize_lookup,
    "tvmcompress.x86_statistics": legalize_statistics,
}
_DEFINITIONS = {**LEGALIZE, **FUNCTIONS, **ROWS, **_BUILT}


def _with_lanes(mod: tvm.IRModule, lanes: int) -> tvm.IRModule:
    """Note in each function how many floats a register holds, for those whose blocks do not say it."""
    if lanes == VECTOR:
        return mod
    functions = {var: func.with_attr(LANES_ANNOTATION, lanes) for var, func in mod.functions.items() if _is_prim(func)}
    return tvm.IRModule({**dict(mod.functions), **functions}, attrs=mod.attrs)


def _is_prim(func: Any) -> bool:
    return isinstance(func, tvm.tirx.PrimFunc)


def prim_funcs(mod: tvm.IRModule) -> dict[str, tvm.tirx.PrimFunc]:
    """The PrimFuncs of a lowered module by name."""
    return {var.name_hint: func for var, func in mod.functions.items() if _is_prim(func)}


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
