"""What may be decided for the kernels of cores with Helium; the formulas of `helium_plans` are the defaults."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ...kernels.compiler_options import LOOPS, usual, with_options
from ...kernels.decisions import Choice, Decisions, Workload, fields
from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR
from .helium_columns import HeliumColumns
from .helium_conv import HeliumKernel
from .helium_conv_shape import HeliumConvolution, HeliumPlan
from .helium_depthwise import HeliumDepthwise
from .helium_plans import vectors

_REACH = 7
"""Vectors of four channels that loads reach from one pointer."""

_LONGEST_ROUND = 16
_WORKSPACE_BYTES = 16384
_WASTE = 1.34
"""Vectors in rounds, against those that are needed."""


def convolution_choice(conv: HeliumConvolution, default: HeliumPlan, adds: bool, one_scale: bool) -> Choice:
    """What may be decided for a convolution.

    Args:
        conv: The convolution.
        default: The formula's plan.
        adds: Whether a sum follows in the same kernel.
        one_scale: Whether all channels share one factor.
    """
    most = max(_WORKSPACE_BYTES, workspace_bytes(conv, default))
    shape = {**fields(conv, "epilogue", "input_zero_point"), **conv.epilogue.kind, "adds": adds, "one_scale": one_scale}
    workload = Workload("helium", "conv2d", shape)
    # The counter of low-overhead loops is one of the eight registers that VMLADAVA can add to. Loads that reach far from one
    # pointer would make strength reduction keep many.
    reduced = default.runs * default.unroll <= _REACH

    def others() -> Iterator[Decisions]:
        for plan in _plans(conv):
            if workspace_bytes(conv, plan) <= most:
                yield from ({**_decisions(plan), LOOPS: loops} for loops in ("plain", "low_overhead"))

    return Choice(workload, {**_decisions(default), LOOPS: "plain", **usual(reduced)}, lambda: with_options(others()))


def convolution_plan(decisions: Decisions) -> HeliumPlan:
    """The plan of what was decided."""
    d: Any = decisions
    return HeliumPlan(d["source"], d["rows"], d["runs"], d["unroll"], pixels=d["pixels"])


def depthwise_choice(layer: HeliumDepthwise) -> Choice:
    """What may be decided for a depthwise convolution, given by the formula's plan."""
    rows = [n for n in range(1, layer.out_height + 1) if layer.out_height % n == 0]
    most = max(_WORKSPACE_BYTES, layer.band.bytes)

    def others() -> Iterator[Decisions]:
        for n in rows:
            if replace(layer, rows=n).band.bytes <= most:
                yield from ({"kernel": "taps", "rows": n, LOOPS: loops} for loops in ("low_overhead", "plain"))
        by_columns = columns_of(layer)
        if by_columns.fits and sum(by_columns.workspaces.values()) <= most:
            yield from ({"kernel": "columns", LOOPS: loops} for loops in ("low_overhead", "plain"))

    shape = {**fields(layer, "epilogue", "input_zero_point", "rows", "groups"), **layer.epilogue.kind}
    shape["groups"] = [len(group) for group in layer.groups]
    default: Decisions = {"kernel": "taps", "rows": layer.rows, LOOPS: "low_overhead", **usual(True)}
    return Choice(Workload("helium", "depthwise", shape), default, lambda: with_options(others()))


def columns_of(layer: HeliumDepthwise) -> HeliumColumns:
    """The same layer by sums along columns."""
    shape = {field.name: getattr(layer, field.name) for field in dataclasses.fields(ConvolutionShape)}
    return HeliumColumns(**shape, epilogue=layer.epilogue)


def workspace_bytes(conv: HeliumConvolution, plan: HeliumPlan) -> int:
    """Bytes of the workspaces of a convolution by a plan."""
    kernel = HeliumKernel(conv, plan)
    if plan.source in ("direct", "paired"):
        return 0
    return int(kernel.band.bytes) + (kernel.panel_bytes if plan.source == "columns" else 0)


def _plans(conv: HeliumConvolution) -> list[HeliumPlan]:
    found = []
    if conv.pointwise:
        exact = [n for n in range(1, _LONGEST_ROUND + 1) if conv.channels >= VECTOR and _reads_within(conv.channels, n)]
        found += [HeliumPlan("direct", conv.out_height, 1, n) for n in exact]
    rows = [n for n in range(1, conv.out_height + 1) if conv.out_height % n == 0]
    joined = vectors(conv.kernel[0] * conv.run)
    # Neighbours share whole vectors only.
    shared = conv.kernel[1] > 1 and conv.channels % VECTOR == 0 and conv.out_width >= 4 and conv.out_channels % 2 == 0
    for n in rows:
        for runs, pixels in itertools.product(sorted({1, conv.kernel[0]}), (2, 4) if shared else (2,)):
            found += [HeliumPlan("band", n, runs, unroll, pixels=pixels) for unroll in _rounds(vectors(conv.run))]
        if conv.kernel[0] > 1:
            found += [HeliumPlan("columns", n, 1, unroll) for unroll in _rounds(joined)]
    return found


def _reads_within(count: int, unroll: int) -> bool:
    """Whether rounds of so many vectors read `count` bytes and none beyond."""
    return vectors(count) == unroll or count % (unroll * VECTOR) == 0


def _rounds(count: int) -> list[int]:
    return [n for n in range(1, min(count, _LONGEST_ROUND) + 1) if -(-count // n) * n <= _WASTE * count]


def _decisions(plan: HeliumPlan) -> Decisions:
    return {"source": plan.source, "rows": plan.rows, "runs": plan.runs, "unroll": plan.unroll, "pixels": plan.pixels}
