"""The layers whose weights a repair can solve for, and the tensors that they are to restore."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass

from .._tvm import relax, tvm
from ..graph.interpreter import plain_value
from ..graph.view import GraphView

_LAYERS = {"relax.nn.conv1d", "relax.nn.conv2d", "relax.matmul"}


@dataclass(frozen=True)
class RepairedLayer:
    """A layer that can be repaired.

    Attributes:
        var: Holds the result of the bare convolution or matrix product.
        call: That operation.
        weight: Its weight.
        bias: The parameter added to it, if there is one.
        output: The tensor whose value is restored: behind the bias, or behind a residual addition.
        other: The other operand of that residual addition, if it is computed before the layer.
        clip: The limits of the activation that alone reads `output`; infinite where there is none.
    """

    var: relax.Var
    call: relax.Call
    weight: relax.Var
    bias: relax.Var | None
    output: str
    other: relax.Var | None
    clip: tuple[float, float]


def find_layers(mod: tvm.IRModule) -> dict[relax.Var, RepairedLayer]:
    """The layers with a weight of their own, by the variable of the bare operation."""
    graph = GraphView(mod)
    params = graph.params
    order = {var: index for index, var in enumerate(graph.values)}
    found: dict[relax.Var, RepairedLayer] = {}
    for var, value in graph.values.items():
        if not isinstance(value, relax.Call) or value.op.name not in _LAYERS:
            continue
        weight = value.args[1]
        if weight not in params or not graph.is_alone(weight) or value.args[0] in params:
            continue
        if value.op.name == "relax.matmul" and params[weight].ndim != 2:
            continue
        added, bias = var, None
        behind = graph.sole_reader(var)
        if behind is not None and _adds(behind[1], var, params) and graph.is_alone(behind[1].args[1]):
            added, bias = behind[0], behind[1].args[1]
        output, other = added, None
        after = graph.sole_reader(added)
        if after is not None:
            addition = after[1]
            if addition.op.name == "relax.add" and all(arg not in params for arg in addition.args):
                operand = addition.args[1] if addition.args[0] is added else addition.args[0]
                if operand is not added and operand.ty == added.ty and order.get(operand, -1) < order[var]:
                    output, other = after[0], operand
        found[var] = RepairedLayer(var, value, weight, bias, output.name, other, _clip(graph.sole_reader(output)))
    return found


def _clip(behind: tuple[relax.Var, relax.Call] | None) -> tuple[float, float]:
    """The limits of an activation that is the only reader of a tensor; infinite where there is none."""
    if behind is None:
        return -math.inf, math.inf
    call = behind[1]
    name = getattr(call.op, "name", "")
    if name == "relax.nn.relu":
        return 0.0, math.inf
    if name == "relax.nn.relu6":
        return 0.0, 6.0
    if name == "relax.clip":
        low, high = (plain_value(limit) for limit in call.args[1:3])
        return float(low), float(high)
    return -math.inf, math.inf


def _adds(value: relax.Call, var: relax.Var, params: Container[relax.Var]) -> bool:
    """Whether `value` adds a parameter to `var`."""
    return value.op.name == "relax.add" and value.args[0].same_as(var) and value.args[1] in params
