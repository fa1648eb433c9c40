"""What may be decided for a convolution on Cortex-A; the plan of fewest counted instructions is the default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...kernels.decisions import Choice, Decisions, Workload, fields
from ...kernels.layers import ConvolutionShape
from .epilogue import Epilogue
from .plan import ConvolutionKernel, Plan
from .plans import cost, plan_convolution, plans
from .products import Products
from .winograd import winograd_cost, winograd_plans

NO_HOISTING = "-licm-mssa-optimization-cap:uint=0"
"""LLVM would move loads of weights out of the loop over pixels, and spill them."""

_FARTHEST = 1.3
"""Counted instructions of a plan that is worth trying, against the fewest."""
_MOST = 96


def convolution_choice(name: str, shape: ConvolutionShape, epilogue: Epilogue, products: Products) -> Choice:
    """What may be decided for a convolution, or for a layer over tokens as one."""

    def others() -> Iterator[Decisions]:
        counted = [(cost(ConvolutionKernel(shape, epilogue, products, plan)), plan) for plan in plans(shape, products)]
        counted.sort(key=lambda item: item[0])
        for count, plan in counted[:_MOST]:
            if count <= _FARTHEST * counted[0][0]:
                yield from ({**_decisions(plan), "hoisting": answer} for answer in ("no", "yes"))
        yield from ({**_decisions(plan), "hoisting": "no"} for plan in filtering)

    kind = {**fields(epilogue, "zero_point", "qmin", "qmax"), "limited": (epilogue.qmin, epilogue.qmax) != (-128, 127)}
    filtering = list(winograd_plans(shape, products))
    if filtering:
        # Logs that know nothing of it are of another choice.
        kind["filtering"] = True
    workload = Workload("neon", name, {**fields(shape, "input_zero_point"), **kind, "products": products.name})
    default = default_plan(shape, epilogue, products)
    return Choice(workload, {**_decisions(default), "hoisting": "no"}, others)


def default_plan(shape: ConvolutionShape, epilogue: Epilogue, products: Products) -> Plan:
    """The plan of fewest instructions, as they are counted; by minimal filtering too."""
    direct = plan_convolution(shape, epilogue, products)
    filtering = min(winograd_plans(shape, products), key=lambda plan: winograd_cost(shape, plan), default=None)
    if filtering is None or winograd_cost(shape, filtering) >= cost(ConvolutionKernel(shape, epilogue, products, direct)):
        return direct
    return filtering


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
