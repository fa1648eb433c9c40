"""What may be decided for the kernels of cores with the DSP extension; the formulas of `plans` are the defaults.

A kernel may take as much workspace as there is to spare, or as its default takes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ...kernels.compiler_options import usual, with_options
from ...kernels.decisions import Choice, Decisions, Workload, fields
from .dense import Dense
from .depthwise import LARGEST_TILE, Depthwise
from .panel import Convolution, PanelConvolution, PanelPlan
from .plans import is_direct
from .routines import fits
from .winograd import WinogradConvolution, WinogradPlan, is_minimal

_LONGEST_ROUND = 24
_LONGEST_DENSE_ROUND = 64
_ROUTINE_ROUNDS = (2, 3, 4, 6, 7, 8, 9, 10, 12, 16)
"""Words in a round of routines: few lengths, which layers can share."""
_BAND_BYTES = 8192
_WASTE = 1.2
"""Words in rounds, against those that are needed."""

Plan = PanelPlan | WinogradPlan
_P = TypeVar("_P", PanelPlan | WinogradPlan, Dense, Depthwise)


def convolution_choice(
    conv: Convolution, default: Plan, room: int, adds: bool, exact: bool, late: bool, formulas: Sequence[Plan] = ()
) -> Choice:
    """What may be decided for a convolution.

    Args:
        conv: The convolution.
        default: The formula's plan.
        room: Bytes of workspace that it may use.
        adds: Whether a sum follows in the same kernel.
        exact: Whether byte planes hold the weights.
        late: Whether they do not hold the biases with them.
        formulas: The formula's plans in other models.
    """

    def plans() -> Iterator[Plan]:
        yield from _panels(conv, default, room, exact)
        if fits(conv.epilogue) and conv.out_channels % 2 == 0:
            yield from _panel_routines(conv, default, room, exact and not late, adds)
        yield from _winograds(conv, room)

    shape = {**_layer_fields(conv), "adds": adds, "late_bias": late, "exact": exact}
    return _choice("conv2d", shape, [default, *formulas], _decisions, lambda: map(_decisions, plans()))


def convolution_plan(decisions: Decisions, late_bias: bool) -> Plan:
    """The plan of what was decided."""
    d: Any = decisions
    if d["kernel"] == "winograd":
        return WinogradPlan(d["block"], d["rows"], d["inputs"] == "whole", d["unroll"], d["tile"], _has_routine(d))
    wide = d["weights"] == "halfwords"
    late = late_bias and not wide
    return PanelPlan(d["source"], d["pixels"], d["unroll"], d["order"] == "halves", wide, late, _has_routine(d))


def _has_routine(decisions: Decisions) -> bool:
    return decisions.get("loop") == "routine"


def dense_choice(layer: Dense, formulas: Sequence[Dense] = ()) -> Choice:
    """What may be decided for a fully connected layer; `formulas` are the formula's plans in other models."""
    words = layer.inputs // 4
    rounds = [n for n in range(1, _LONGEST_DENSE_ROUND + 1) if words % n == 0]

    def points() -> Iterator[Decisions]:
        for unpacked, counts in (("unpacked", (1, 2, 3)), ("packed", (2, 3, 4, 6))):
            for pairs, unroll in itertools.product(counts, rounds):
                yield {"pairs": pairs, "unroll": unroll, "input": unpacked}
        if fits(layer.epilogue) and layer.outputs % 4 == 0 and not layer.late_bias:
            for unroll in (n for n in rounds if n in _ROUTINE_ROUNDS):
                yield {"pairs": 2, "unroll": unroll, "input": "unpacked", "loop": "routine"}

    def decisions(layer: Dense) -> Decisions:
        source = "unpacked" if layer.unpacked else "packed"
        return {"pairs": layer.pairs, "unroll": layer.unroll, "input": source, **_loop(layer)}

    shape = {**fields(layer, "epilogue", "pairs", "unroll", "unpacked", "routine"), **layer.epilogue.kind}
    return _choice("dense", shape, [layer, *formulas], decisions, points)


def dense_plan(layer: Dense, decisions: Decisions) -> Dense:
    """The layer as was decided."""
    d: Any = decisions
    unpacked = d["input"] == "unpacked"
    return replace(layer, pairs=d["pairs"], unroll=d["unroll"], unpacked=unpacked, routine=_has_routine(d))


def depthwise_choice(layer: Depthwise, formulas: Sequence[Depthwise] = ()) -> Choice:
    """What may be decided for a depthwise convolution, given by the formula's plan here and its plans in other models."""
    most = max(_BAND_BYTES, layer.workspace_bytes)
    tiles = [n for n in range(2, LARGEST_TILE + 1) if n == layer.out_width or (n % 2 == 0 and n < layer.out_width)]

    def points() -> Iterator[Decisions]:
        for rows, tile in itertools.product(range(1, layer.out_height + 1), tiles):
            if replace(layer, band=rows).workspace_bytes <= most:
                yield {"band": rows, "tile": tile}
                if fits(layer.epilogue) and layer.out_width % tile == 0:
                    yield {"band": rows, "tile": tile, "loop": "routine"}

    shape = {**fields(layer, "epilogue", "input_zero_point", "band", "columns", "routine"), **layer.epilogue.kind}

    def decisions(layer: Depthwise) -> Decisions:
        return {"band": layer.band, "tile": layer.tile, **_loop(layer)}

    return _choice("depthwise", shape, [layer, *formulas], decisions, points)


def depthwise_plan(layer: Depthwise, decisions: Decisions) -> Depthwise:
    """The layer as was decided."""
    d: Any = decisions
    return replace(layer, band=d["band"], columns=d["tile"], routine=_has_routine(d))


def _panels(conv: Convolution, default: Plan, room: int, exact: bool) -> Iterator[PanelPlan]:
    most = max(room, workspace_bytes(conv, default))
    words = PanelConvolution(conv, PanelPlan("strip", 2, 1)).used_words
    rounds = [n for n in range(1, min(words, _LONGEST_ROUND) + 1) if -(-words // n) * n <= _WASTE * words]
    for source in ["direct"] if is_direct(conv) else ["strip", "image"]:
        for pixels in (2, 3):
            for unroll in rounds:
                for halves in (False, True):
                    for wide in (False, True) if exact else (True,):
                        plan = PanelPlan(source, pixels, unroll, halves, wide)
                        if workspace_bytes(conv, plan) <= most:
                            yield plan


def _panel_routines(conv: Convolution, default: Plan, room: int, planes: bool, adds: bool) -> Iterator[PanelPlan]:
    most = max(room, workspace_bytes(conv, default, adds))
    words = PanelConvolution(conv, PanelPlan("strip", 2, 1)).used_words
    rounds = [n for n in (1, *_ROUTINE_ROUNDS) if n <= words and -(-words // n) * n <= _WASTE * words]
    for source in ["direct"] if is_direct(conv) else ["strip", "image"]:
        for pixels, unroll, wide in itertools.product((2, 3), rounds, (False, True) if planes else (True,)):
            plan = PanelPlan(source, pixels, unroll, True, wide, routine=True)
            if workspace_bytes(conv, plan, adds) <= most:
                yield plan


def _winograds(conv: Convolution, room: int) -> Iterator[WinogradPlan]:
    c = conv
    tiles = [tile for tile in (2, 4) if is_minimal(c, tile) and c.out_width >= 2 * tile]
    words = 3 * c.channels // 4
    rounds = [n for n in range(2, _LONGEST_ROUND + 1) if words % n == 0]
    for tile, unroll in itertools.product(tiles, rounds):
        for block in (n for n in range(2, c.out_channels + 1, 2) if c.out_channels % n == 0):
            for rows in (n for n in range(1, c.out_height + 1) if c.out_height % n == 0):
                for whole in (False, True) if rows == c.out_height else (False,):
                    plan = WinogradPlan(block, rows, whole, unroll, tile)
                    if workspace_bytes(c, plan) > room:
                        continue
                    yield plan
                    if unroll in _ROUTINE_ROUNDS:
                        yield replace(plan, routine=True)


def workspace_bytes(conv: Convolution, plan: Plan, adds: bool = False) -> int:
    """Bytes of the workspaces of a convolution by a plan; `adds` says whether a sum follows in the same kernel."""
    if isinstance(plan, WinogradPlan):
        return sum(WinogradConvolution(conv, plan).workspaces.values())
    return sum(PanelConvolution(conv, plan, adds=adds).workspaces.values())


def _decisions(plan: Plan) -> Decisions:
    if isinstance(plan, WinogradPlan):
        inputs = "whole" if plan.whole else "strips"
        sizes = {"block": plan.block, "rows": plan.rows, "unroll": plan.unroll, "tile": plan.tile}
        return {"kernel": "winograd", "inputs": inputs, **sizes, **_loop(plan)}
    return {
        "kernel": "panel",
        "source": plan.source,
        "pixels": plan.pixels,
        "unroll": plan.unroll,
        "order": "halves" if plan.halves else "pixels",
        "weights": "halfwords" if plan.int16_weights else "planes",
        **_loop(plan),
    }


def _loop(plan: Plan | Dense | Depthwise) -> Decisions:
    """Who makes the inner loop: LLVM where nothing is said."""
    return {"loop": "routine"} if plan.routine else {}


def _choice(
    kernel: str,
    shape: dict[str, Any],
    formulas: Sequence[_P],
    decisions: Callable[[_P], Decisions],
    points: Callable[[], Iterable[Decisions]],
) -> Choice:
    """A choice in which LLVM's options are decided as well, given the formula's plans, the default first."""
    # Loop strength reduction gains where little but loops is left.
    known = [
        {**decisions(plan), **usual(isinstance(plan, Depthwise) or (isinstance(plan, Dense) and plan.routine))}
        for plan in formulas
    ]
    return Choice(Workload("dsp", kernel, shape), known[0], lambda: with_options(iter(points())), known[1:])


def _layer_fields(conv: Convolution) -> dict[str, Any]:
    return {**fields(conv, "epilogue", "input_zero_point"), **conv.epilogue.kind}
