"""Folding batch normalization into the convolution or matrix product before it.

y = gamma * (conv(x, w) + b - mean) / sqrt(var + eps) + beta is a convolution with w' = w * s and b' = (b - mean) * s + beta,
where s = gamma / sqrt(var + eps) per output channel (Jacob et al., 2018, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from .._tvm import relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.module_params import static_shape
from ..graph.normalization_statistics import Moments, record_statistics
from ..graph.rebuild import Rebuilder, rebuild
from ..graph.remarks import Remark, add_remarks
from ..graph.view import GraphView

# Operator of the producer: the axis of its weight that counts output channels.
_WEIGHT_CHANNEL = {"relax.nn.conv1d": 0, "relax.nn.conv2d": 0, "relax.matmul": -1}


@dataclass(frozen=True)
class _Producer:
    """A convolution or matrix product, with its bias addition if it has one, that nothing but the normalization reads."""

    call: relax.Call
    bias: np.ndarray | None
    bias_name: str | None


@model_pass("FoldBatchNorm")
class FoldBatchNorm:
    """Fold inference-mode batch normalization into the weights and bias of its producer.

    A normalization whose producer is read by others too, or is no convolution or matrix product, becomes a multiplication
    and an addition per channel, and a remark says so. What a folded normalization knew about its result is kept, see
    `normalization_statistics`.
    """

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`; parameters must be attached."""
        return _fold(mod)


def _fold(mod: tvm.IRModule) -> tvm.IRModule:
    graph = GraphView(mod)
    remarks: list[Remark] = []
    shared_params = {var for var in graph.main.params if len(graph.readers.get(var, [])) > 1}

    def sole_value(expr: relax.Expr) -> relax.Expr | None:
        """What is bound to a variable with a single reader."""
        return graph.values.get(expr) if graph.is_alone(expr) else None

    def producer(build: Rebuilder, expr: relax.Expr) -> _Producer | None:
        value = sole_value(expr)
        bias: np.ndarray | None = None
        bias_name: str | None = None
        if _is_call(value, "relax.add"):
            bias, bias_name = build.param_value(value.args[1]), build.param_name(value.args[1])
            if bias is None:
                return None
            value = sole_value(value.args[0])
        if isinstance(value, relax.Call) and getattr(value.op, "name", None) in _WEIGHT_CHANNEL:
            weight = value.args[1]
            if build.param_name(weight) is not None and weight not in shared_params and _channels_first(value):
                return _Producer(value, bias, bias_name)
        return None

    left: set[relax.Var] = set()
    moments: dict[str, Moments] = {}

    def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if isinstance(value, relax.TupleGetItem) and _is_call(graph.values.get(value.tuple_value), "relax.nn.batch_norm"):
            if value.tuple_value in left:
                return None
            if int(value.index) == 0:
                return build.get(value.tuple_value)
            return build.get(graph.values[value.tuple_value].args[2 + int(value.index)])
        if not _is_call(value, "relax.nn.batch_norm"):
            return None
        statistics = [build.param_value(arg) for arg in value.args[1:]]
        if any(array is None for array in statistics):
            remarks.append(Remark("FoldBatchNorm", var.name, "its statistics are computed, so it stays as it is"))
            left.add(var)
            return None
        gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in statistics)
        scale = 1 / np.sqrt(variance + float(value.attrs.epsilon))
        scale = scale * gamma if value.attrs.scale else scale
        shift = (beta if value.attrs.center else 0) - mean * scale
        found = producer(build, value.args[0])
        axis, rank = int(value.attrs.axis), len(static_shape(value.args[0]))
        shape = [1] * rank
        shape[axis] = -1
        if found is None:
            remarks.append(Remark("FoldBatchNorm", var.name, "its producer cannot take it; it became multiply and add"))
            stem = (build.param_name(value.args[1]) or var.name).rpartition(".")[0] or var.name
            data = build.get(value.args[0])
            dtype = str(value.args[0].ty.dtype)
            scaled = relax.op.multiply(data, build.param(f"{stem}.scale", scale.reshape(shape).astype(dtype)))
            return relax.op.add(
                build.emit(scaled, f"{stem}.scaled"), build.param(f"{stem}.shift", shift.reshape(shape).astype(dtype))
            )
        name = build.param_name(found.call.args[1])
        centre = beta if value.attrs.center else np.zeros_like(mean)
        moments[str(name)] = Moments(centre, np.abs(gamma) if value.attrs.scale else np.ones_like(mean))
        return _folded(build, found, scale, shift, shape)

    folded = rebuild(mod, rewrite)
    return record_statistics(add_remarks(folded, remarks), moments)


def _folded(build: Rebuilder, producer: _Producer, scale: np.ndarray, shift: np.ndarray, shape: list[int]) -> relax.Expr:
    call = producer.call
    name = build.param_name(call.args[1])
    assert name is not None
    weight = build.old_params[name]
    channel = _WEIGHT_CHANNEL[call.op.name] % weight.ndim
    along = [1] * weight.ndim
    along[channel] = -1
    new_weight = (weight.astype(np.float64) * scale.reshape(along)).astype(weight.dtype)
    bias = shift if producer.bias is None else shift + producer.bias.astype(np.float64).reshape(-1) * scale
    stem = name.removesuffix(".weight").removesuffix("_weight")
    bias_name = producer.bias_name or f"{stem}.bias"
    out = relax.Call(call.op, [build.get(call.args[0]), build.param(name, new_weight)], call.attrs, call.ty_args)
    return relax.op.add(build.emit(out, stem), build.param(bias_name, bias.reshape(shape).astype(weight.dtype)))


def _is_call(expr: relax.Expr | None, name: str) -> TypeGuard[relax.Call]:
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", None) == name


def _channels_first(call: relax.Call) -> bool:
    if call.op.name == "relax.matmul":
        return len(static_shape(call.args[1])) == 2
    return str(call.attrs.kernel_layout).startswith("OI") and str(call.attrs.data_layout).startswith("NC")
