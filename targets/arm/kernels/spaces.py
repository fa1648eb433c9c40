"""What may be decided for a convolution on Cortex-A; the plan of fewest counted instructions is the default."""

from __future__ import annotations

from typing import Any

from ...kernels.decisions import Choice, Decisions, Workload, fields, space
from ...kernels.layers import ConvolutionShape
from .epilogue import Epilogue
from .plan import ConvolutionKernel, Plan
from .plans import cost, plans
from .products import Products

NO_HOISTING = "-licm-mssa-optimization-cap:uint=0"
"""LLVM would move loads of weights out of the loop over pixels, and spill them."""

_FARTHEST = 1.3
"""Counted instructions of a plan that is worth trying, against the fewest."""
_MOST = 96


def convolution_choice(name: str, shape: ConvolutionShape, epilogue: Epilogue, products: Products) -> Choice:
    """What may be decided for a convolution, or for a layer over tokens as one."""
    counted = sorted(
        ((cost(ConvolutionKernel(shape, epilogue, products, plan)), i, plan) for i, plan in enumerate(plans(shape, products))),
        key=lambda item: item[:2],
    )
    near = [plan for count, _, plan in counted[:_MOST] if count <= _FARTHEST * counted[0][0]]
    kind = {**fields(epilogue, "zero_point", "qmin", "qmax"), "limited": (epilogue.qmin, epilogue.qmax) != (-128, 127)}
    sizes = fields(shape, "input_zero_point")
    workload = Workload("neon", name, {**sizes, **kind, "products": products.name})
    ways: list[Decisions] = [{"hoisting": "no"}, {"hoisting": "yes"}]
    points = [{**_decisions(plan), **way} for plan in near for way in ways]
    return Choice(workload, space(points[0], points))


def convolution_plan(decisions: Decisions) -> Plan:
    """The plan of what was decided."""
    d: Any = decisions
    return Plan(d["source"], (d["down"], d["across"]), d["vectors"], d["rows"], d["unroll"])


def llvm_options(decisions: Decisions) -> str:
    """The LLVM options of what was decided."""
    return "" if decisions["hoisting"] == "yes" else NO_HOISTING


def _decisions(plan: Plan) -> Decisions:
    down, across = plan.pixels
    return {
        "source": plan.source,
        "down": down,
        "across": across,
        "vectors": plan.vectors,
        "rows": plan.rows,
        "unroll": plan.unroll,
    }
