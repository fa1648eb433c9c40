"""Activations of fewer than 7 bits: which tensors have them, and the clip that keeps them there.

Integers of few bits are int8 values that stay between limits, 4 bits between -8 and 7: neither QDQ form nor any target has a
type of its own for them. The real values are clipped to the ends of those integers before they are rounded; where integers
are computed the clip is a pair of limits, as a ReLU6's is, which every operator has.

As the field counts (Esser et al., "Learned Step Size Quantization", 2020; Li et al., "BRECQ", 2021), what is multiplied has few
bits: what convolutions and matrix products read. Tensors that are only added, joined or averaged have 8, and so have the first
and the last layers: the image that the network is given, what its last layers read, and its results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from .._tvm import Constant, relax
from ..graph.view import GraphView
from ..numbers.affine import Affine
from ..numbers.schemes import Scheme
from .kinds import op_name
from .plan import Plan

SUFFIX = ".clipped"
"""Of the names of clipped tensors."""


def outer_layers(plan: Plan, program: Iterable[tuple[relax.Var, relax.Expr]]) -> tuple[set[relax.Var], set[relax.Var]]:
    """The layers that no other layer stands in front of, and those that none stands behind.

    Args:
        plan: Of the module.
        program: The bindings of `main`.
    """
    listed = list(program)
    computed = _computed(plan, listed)
    behind: set[relax.Var] = set()
    for var, value in reversed(listed):
        if var in plan.layers or var in behind:
            behind.update(relax.analysis.free_vars(value))
    first = {var for var, value in listed if var in plan.layers and not _any(value, computed)}
    return first, {var for var in plan.layers if var not in behind}


def few_bit_tensors(
    plan: Plan, schemes: dict[relax.Var, Scheme], program: Iterable[tuple[relax.Var, relax.Expr]]
) -> dict[relax.Var, Scheme]:
    """The scheme of every point of a plan, with 8 bits where there are to be no fewer.

    Args:
        plan: Of the module.
        schemes: Of the points, from `tensor_schemes`.
        program: The bindings of `main`.
    """
    if all(scheme.clipped_bits is None for scheme in schemes.values()):
        return schemes
    listed = list(program)
    computed, (_, last) = _computed(plan, listed), outer_layers(plan, listed)
    multiplied: set[relax.Var] = set()
    whole: set[relax.Var] = set()
    for var, value in listed:
        if var in plan.layers or op_name(value) in ("relax.matmul", "relax.einsum"):
            read = {plan.root(operand) for operand in relax.analysis.free_vars(value) if operand in plan.points}
            (whole if var in last else multiplied).update(read)
    few = {root for root in multiplied - whole if root in computed}
    return {
        var: scheme if scheme.clipped_bits is None or plan.root(var) in few else replace(scheme, activation_bits=8)
        for var, scheme in schemes.items()
    }


def _any(value: relax.Expr, known: set[relax.Var]) -> bool:
    return any(operand in known for operand in relax.analysis.free_vars(value))


def _computed(plan: Plan, program: list[tuple[relax.Var, relax.Expr]]) -> set[relax.Var]:
    """What layers compute, and what is computed from that."""
    found: set[relax.Var] = set()
    for var, value in program:
        if var in plan.layers or _any(value, found):
            found.add(var)
    return found


def ends(affine: Affine) -> tuple[float, float]:
    """The real values, each a float32, of the smallest and the largest integer."""
    low, high = affine.dequantize(np.array(affine.limits, np.int32))
    return float(low), float(high)


def clipped_to(value: relax.Expr, affine: Affine) -> relax.Expr:
    """A tensor clipped to what integers of few bits stand for."""
    return relax.op.clip(value, *ends(affine))


def clipped_quantizers(graph: GraphView) -> Iterator[tuple[relax.Var, relax.Call, relax.Var, Affine]]:
    """The quantizers behind a clip of few bits: the variable, its call, and what `clip_of_bits` says of it."""
    for var, call in graph.values.items():
        if op_name(call) == "relax.quantize" and (found := clip_of_bits(graph, call)) is not None:
            yield var, call, *found


def clip_of_bits(graph: GraphView, quantize: relax.Call) -> tuple[relax.Var, Affine] | None:
    """The clip that keeps what is quantized in few bits, and its integers; None where there are 8.

    A clip in front of `quantize` counts as one whose ends are those of 2, 4, 8, ... 64 integers.
    """
    clip, scale, zero = graph.call(quantize.args[0]), *(_number(graph, arg) for arg in quantize.args[1:3])
    if clip is None or clip.op.name != "relax.clip" or not graph.is_alone(quantize.args[0]):
        return None
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None
    whole = Affine(float(scale.reshape(())), int(zero.reshape(())), str(zero.dtype))
    given = tuple(float(arg.value) for arg in clip.args[1:3])
    for bits in range(1, 7):
        affine = replace(whole, bits=bits)
        if np.dtype(affine.dtype).itemsize == 1 and np.allclose(given, ends(affine), rtol=1e-6, atol=1e-6 * affine.scale):
            return quantize.args[0], affine
    return None


def _number(graph: GraphView, expr: relax.Expr) -> np.ndarray | None:
    return np.asarray(expr.value.numpy()) if isinstance(expr, Constant) else graph.params.get(expr)
