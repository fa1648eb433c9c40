"""The layers of a float model whose precision can be chosen one by one.

Quantization takes an operator together with its bias and activation, and a chain of operators that act on every element by
itself as one: such a unit computes in one precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape

import numpy as np

from .._tvm import relax, tvm
from ..graph.analysis import call_macs
from ..graph.module_params import static_shape
from ..graph.pointwise import pointwise_operands
from ..graph.view import GraphView
from .kinds import joins
from .plan import plan_quantization


@dataclass(frozen=True)
class QuantizationUnit:
    """What computes in one precision.

    Attributes:
        name: The operator that begins it.
        op: That operator, without the prefix "relax.".
        members: Names of its operators, the first `name`.
        macs: Multiply-accumulate operations of one inference.
        params: Weights and biases.
        weighted: Whether it is a convolution or matrix product with constant weights.
    """

    name: str
    op: str
    members: tuple[str, ...]
    macs: int
    params: int
    weighted: bool

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns (as of `fnmatch`) by which its precision is set; a layer with weights takes what follows along."""
        named = self.members[:1] if self.weighted else self.members
        return tuple(escape(member) for member in named)


def quantization_units(mod: tvm.IRModule) -> list[QuantizationUnit]:
    """The units of a float module in canonical form, parameters attached, in order of computation."""
    plan, graph = plan_quantization(mod), GraphView(mod)
    calls = {var: value for var, value in graph.values.items() if isinstance(value, relax.Call)}
    params = graph.params
    found = []
    for end in plan.points:
        if end not in calls:
            continue
        inside, operands = _members(end, calls, set(plan.points))
        chain = len(operands - set(params)) == 1 and pointwise_operands(calls[end], params) is not None
        # What stays in float, and is read as integers, has no precision to choose.
        if not (end in plan.heads or joins(calls[end]) or chain):
            continue
        members = [var for var in calls if var in inside]
        found.append(
            QuantizationUnit(
                name=members[0].name,
                op=str(calls[members[0]].op.name).removeprefix("relax."),
                members=tuple(var.name for var in members),
                macs=sum(call_macs(calls[var]) for var in members),
                params=sum(int(np.prod(static_shape(var))) for var in operands & set(params)),
                weighted=members[0] in plan.layers,
            )
        )
    order = {var.name: index for index, var in enumerate(calls)}
    return sorted(found, key=lambda unit: order[unit.name])


def _members(
    end: relax.Var, calls: dict[relax.Var, relax.Call], points: set[relax.Var]
) -> tuple[set[relax.Var], set[relax.Var]]:
    """`end` and what it is computed from behind quantized tensors; and what those read from outside."""
    inside, operands = {end}, set()
    open_ = [end]
    while open_:
        for var in relax.analysis.free_vars(calls[open_.pop()]):
            if var not in calls or var in points:
                operands.add(var)
            elif var not in inside:
                inside.add(var)
                open_.append(var)
    return inside, operands
