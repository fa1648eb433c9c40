"""In which integers each tensor between layers is kept, where layers differ in their schemes."""

from __future__ import annotations

from collections.abc import Iterable

from .._tvm import relax, tvm
from ..graph.rebuild import bindings
from ..numbers.affine import Affine
from ..numbers.schemes import Scheme, Schemes
from .few_bits import few_bit_tensors
from .plan import Plan, plan_quantization


def tensor_schemes(plan: Plan, schemes: Schemes, program: Iterable[tuple[relax.Var, relax.Expr]]) -> dict[relax.Var, Scheme]:
    """The scheme that decides on the integers of each quantized tensor.

    That of the operator that computes it; int16 where an operator that reads it computes with int16; and where what
    computes it stays in float, that of its first reader. Tensors that share a scale share their scheme. Where
    nothing is multiplied, and where a network begins and ends, there are 8 bits, see `few_bits`.

    Args:
        plan: Of the module.
        schemes: By layer.
        program: The bindings of `main`.

    Returns:
        A scheme for every point of the plan.
    """
    readers: dict[relax.Var, list[Scheme]] = {}
    heads = {*plan.layers, *plan.heads.values(), *plan.points}
    listed = list(program)
    for var, value in listed:
        if var in heads and isinstance(value, relax.Call) and schemes[var.name].quantized:
            for operand in relax.analysis.free_vars(value):
                if operand in plan.points:
                    readers.setdefault(plan.root(operand), []).append(schemes[var.name])
    found: dict[relax.Var, Scheme] = {}
    inputs = set(plan.points) - {var for var, _ in listed}
    for var, point in plan.points.items():
        if point.same_as is not None:
            found[var] = found[plan.root(var)]
            continue
        own = schemes[plan.heads.get(var, var).name]
        reading = readers.get(var, [])
        wide = [scheme for scheme in reading if scheme.activations == "int16"]
        if own.activations == "int16" and var not in inputs:
            found[var] = own
        elif wide:
            found[var] = wide[0]
        elif reading and (var in inputs or not own.quantized):
            found[var] = reading[0]
        else:
            found[var] = own if own.quantized else Scheme()
    return few_bit_tensors(plan, found, listed)


def clipped_bits(mod: tvm.IRModule, schemes: Schemes) -> dict[str, int]:
    """The tensors of a float module that `Quantize` would clip to few bits, by name: to how many.

    Args:
        mod: In canonical form, parameters attached.
        schemes: By layer.
    """
    plan = plan_quantization(mod, schemes.stays_float)
    found = tensor_schemes(plan, schemes, bindings(mod["main"]))
    return {var.name: scheme.clipped_bits for var, scheme in found.items() if scheme.clipped_bits is not None}


def fixed_affine(affine: Affine, dtype: str) -> Affine:
    """The scale of a result in a known interval, given for int8, for another dtype, as TensorFlow Lite demands it."""
    if dtype == "uint8":
        return Affine(affine.scale, affine.zero_point + 128, dtype)
    return Affine(1.0 / 32768.0, 0, dtype) if dtype == "int16" else affine
