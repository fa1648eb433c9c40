"""Tensors that are joined for no integer operator, as a detector's boxes (0 to 640) and scores (0 to 1) in one output.

In 8 bits the joined tensor has one scale, that of its largest part, at which a part of small values is all zeros. Where the
ranges of the parts lie far apart, each part keeps a scale of its own, and they are joined as real numbers behind the
integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeGuard

import numpy as np

from .._tvm import relax, tvm
from ..graph.interpreter import evaluate_call, plain_value
from ..graph.module_params import static_shape
from ..graph.view import GraphView
from ..numbers.affine import Range
from ..numbers.schemes import Scheme
from .kinds import REARRANGING, is_float, is_move, op_name
from .plan import Plan, plan_quantization

FARTHEST = 8.0
"""How many times wider than the narrowest part's the widest part's range may be in 8 bits: 3 bits of it are lost."""

_JOINS = ("relax.concat", "relax.stack")
# Behind these every value is still one value of a part.
_KEEPING = (*REARRANGING, "relax.strided_slice", "relax.split")


def separate_joins(
    mod: tvm.IRModule,
    plan: Plan,
    schemes: Mapping[relax.Var, Scheme],
    ranges: Mapping[str, Range],
    exclude: Callable[[str], bool],
) -> dict[str, float]:
    """The joins that are better computed in float: nothing that computes with integers reads them.

    Args:
        mod: The float module that is to be quantized.
        plan: Of the module.
        schemes: Of the quantized tensors.
        ranges: By tensor.
        exclude: Which layers stay in float, as `plan` has it.

    Returns:
        By name of the joined tensor, in order: how many times wider the widest part's range is than the narrowest's; 0 where
        that is no reason, but a part that is joined in float itself.
    """
    graph = GraphView(mod)
    joins = [var for var in _joins(graph) if var in plan.points]
    # 16 bits have 8 to spare.
    factors = {var: _factor(var, graph, plan, ranges) / (256 if schemes[var].activations == "int16" else 1) for var in joins}
    if all(factor <= FARTHEST for factor in factors.values()):
        return {}
    names = {var.name for var in joins}
    read = _read_as_integers(graph, plan_quantization(mod, lambda name: name in names or exclude(name)))
    found: dict[str, float] = {}
    for var in joins:
        # A part that is real numbers by now would have to be quantized again.
        inherited = any(getattr(_source(part, graph), "name", "") in found for part in _parts(graph.values[var]))
        if var not in read and (inherited or factors[var] > FARTHEST):
            found[var.name] = _factor(var, graph, plan, ranges) if factors[var] > FARTHEST else 0.0
    return found


def output_parts(mod: tvm.IRModule) -> dict[int, tuple[list[str], np.ndarray]]:
    """What the joined outputs of a module are made of.

    Returns:
        By position of the output: the names of the tensors joined, and for every element, in the output's shape, which of
        them it is of.
    """
    graph = GraphView(mod)
    names: list[str] = []
    labels: dict[relax.Var, np.ndarray | tuple[np.ndarray, ...]] = {}

    def label(expr: relax.Expr) -> np.ndarray | tuple[np.ndarray, ...]:
        if isinstance(expr, relax.Var) and expr in labels:
            return labels[expr]
        names.append(getattr(expr, "name", "constant"))
        made = np.full(static_shape(expr), len(names) - 1, np.float32)
        if isinstance(expr, relax.Var):
            labels[expr] = made
        return made

    reaching = _reaching_outputs(graph)
    for var, value in graph.values.items():
        if var not in reaching:
            continue
        if op_name(value) in _JOINS:
            fields = tuple(label(part) for part in _parts(value))
            labels[var] = evaluate_call(value, [fields, *map(plain_value, value.args[1:])])
        elif isinstance(value, relax.TupleGetItem) and value.tuple_value in labels:
            labels[var] = labels[value.tuple_value][int(value.index)]
        elif op_name(value) in _KEEPING and value.args[0] in labels:
            labels[var] = evaluate_call(value, [labels[value.args[0]], *map(plain_value, value.args[1:])])
    found = {}
    for position, output in enumerate(module_outputs(graph)):
        made = labels.get(output)
        if isinstance(made, np.ndarray) and len(np.unique(made)) > 1:
            found[position] = (names, made.astype(np.int64))
    return found


def module_outputs(graph: GraphView) -> list[relax.Expr]:
    """The outputs of a module, each the variable that computes it."""
    result = graph.main.body.body
    while isinstance(result, relax.Var) and isinstance(graph.values.get(result), (relax.Var, relax.Tuple)):
        result = graph.values[result]
    return list(result.fields) if isinstance(result, relax.Tuple) else [result]


def _joins(graph: GraphView) -> list[relax.Var]:
    return [var for var, value in graph.values.items() if op_name(value) in _JOINS and is_float(value)]


def _reaching_outputs(graph: GraphView) -> set[relax.Var]:
    """Float tensors whose values are in an output as they are."""
    reaching = {output for output in module_outputs(graph) if isinstance(output, relax.Var)}
    for var, value in reversed(graph.values.items()):
        if var not in reaching:
            continue
        if isinstance(value, relax.TupleGetItem):
            reaching.add(value.tuple_value)
        elif op_name(value) in _KEEPING:
            reaching.add(value.args[0])
        elif op_name(value) in _JOINS:
            reaching.update(part for part in _parts(value) if isinstance(part, relax.Var))
    return reaching


def _read_as_integers(graph: GraphView, plan: Plan) -> set[relax.Var]:
    """What integer operators read, at once or behind moves and joins; `plan` leaves all joins in float."""
    found: set[relax.Var] = set()
    for var, value in reversed(graph.values.items()):
        moved = isinstance(value, relax.TupleGetItem) or op_name(value) in _JOINS or _moves(value, graph)
        readers = graph.readers.get(var, [])
        if moved and (var in plan.points or any(reader in found for reader in readers)):
            found.add(var)
    return found


def _moves(value: relax.Expr | None, graph: GraphView) -> TypeGuard[relax.Call]:
    return isinstance(value, relax.Call) and is_move(value, graph.params)


def _parts(join: relax.Call) -> list[relax.Expr]:
    return list(join.args[0].fields)


def _source(expr: relax.Expr, graph: GraphView) -> relax.Expr:
    """What a tensor's values were moved from."""
    while isinstance(expr, relax.Var):
        value = graph.values.get(expr)
        if isinstance(value, relax.TupleGetItem):
            expr = value.tuple_value
        elif _moves(value, graph):
            expr = value.args[0]
        else:
            break
    return expr


def _factor(join: relax.Var, graph: GraphView, plan: Plan, ranges: Mapping[str, Range]) -> float:
    """How many times wider the range of a join's widest part is than that of its narrowest."""
    widths = [width for part in _parts(graph.values[join]) if (width := _width(part, graph, plan, ranges)) > 0]
    return max(widths) / min(widths) if widths else 1.0


def _width(part: relax.Expr, graph: GraphView, plan: Plan, ranges: Mapping[str, Range]) -> float:
    """The width of a part's range, zero included; 0 where it is not known."""
    value = plain_value(part) if not isinstance(part, relax.Var) else graph.params.get(part)
    if value is not None:
        return float(max(value.max(initial=0), 0) - min(value.min(initial=0), 0))
    if part not in plan.points:
        return 0.0
    root = plan.root(part)
    fixed = plan.points[root].fixed
    if fixed is not None:
        return fixed.scale * 256
    found = ranges.get(root.name)
    return max(found.high, 0.0) - min(found.low, 0.0) if found is not None else 0.0
