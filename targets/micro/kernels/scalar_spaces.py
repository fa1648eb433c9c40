"""What may be decided for the kernels of cores without the DSP extension, and what is by default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...kernels.decisions import Choice, Decisions, Workload, fields
from .scalar_assembly import BLOCKS
from .scalar_conv import ScalarConvolution, ScalarKernel, ScalarPlan
from .scalar_depthwise import ScalarDepthwise

_LONGEST_ROUND = 16
_AMPLE = 6144
"""Bytes of workspace that a convolution may always take where speed may take any."""


def convolution_choice(conv: ScalarConvolution, room: int, fits: bool) -> Choice:
    """What may be decided for a convolution.

    Args:
        conv: The convolution.
        room: Bytes of workspace that it may use.
        fits: Whether long products are exact.
    """
    default = plan_convolution(conv, room, fits)
    most = max(room, workspace_bytes(conv, default))

    def points() -> Iterator[Decisions]:
        for plan in _plans(conv, fits):
            if workspace_bytes(conv, plan) <= most:
                yield vars(plan)

    shape = {**fields(conv, "epilogue", "input_zero_point"), **conv.epilogue.kind, "long": fits}
    return Choice(Workload("scalar", "conv2d", shape), vars(default), points)


def convolution_plan(decisions: Decisions) -> ScalarPlan:
    """The plan of what was decided."""
    d: Any = decisions
    return ScalarPlan(d["source"], d["products"], d["pixels"], d["channels"], d["unroll"])


def plan_convolution(conv: ScalarConvolution, room: int, fits: bool) -> ScalarPlan:
    """The formula's plan: of the first way to multiply and the longest rounds, the block that takes fewest instructions."""
    kind = _kinds(conv, fits)[0]
    source, unroll = _sources(conv)[0], _rounds(conv, kind)[-1]
    blocks = [block for block in BLOCKS[kind] if conv.out_channels % block[1] == 0]
    plans = [ScalarPlan(source, kind, *block, unroll) for block in blocks]
    # Without any to spare, as little as can be.
    most = max(room, _AMPLE) if room else min(workspace_bytes(conv, plan) for plan in plans)
    fitting = [plan for plan in plans if workspace_bytes(conv, plan) <= most]
    return min(fitting or plans[:1], key=lambda plan: _instructions(conv, plan))


def _instructions(conv: ScalarConvolution, plan: ScalarPlan) -> float:
    """What a convolution takes, about."""
    kernel = ScalarKernel(conv, plan)
    pixels, channels = plan.pixels, plan.channels
    if plan.products == "long":
        value = 1 + channels * (1 + kernel.words) + 2 / plan.unroll
    elif plan.products == "word":
        loads = pixels // 2 if pixels * channels > 6 and pixels > 1 else 1
        value = loads + channels * (1 + pixels) + 3 / plan.unroll
    else:
        value = (16 if channels > 1 else 2.75 + 2 * pixels) + 3 / plan.unroll
    outputs = pixels * channels * (10 if conv.epilogue.long else 31) + (14 if conv.epilogue.long else 24) * channels + 8
    laid = kernel.values * kernel.words * 4.5
    panel = conv.out_channels / channels * (kernel.values * value + outputs) + laid
    return kernel.source.walks * kernel.source.panels * panel


def is_direct(conv: ScalarConvolution) -> bool:
    """Whether the input can be read as it lies."""
    pointwise = conv.kernel == (1, 1) and conv.top == 0 and conv.left == 0
    down, across = (conv.out_height - 1) * conv.strides[0], (conv.out_width - 1) * conv.strides[1]
    return pointwise and down < conv.height and across < conv.width


def workspace_bytes(conv: ScalarConvolution, plan: ScalarPlan) -> int:
    """Bytes of the workspaces of a convolution by a plan."""
    return sum(ScalarKernel(conv, plan).workspaces.values())


def _kinds(conv: ScalarConvolution, fits: bool) -> list[str]:
    if not conv.epilogue.long:
        return ["low"]
    if conv.out_height * conv.out_width == 1:
        return ["word"]
    return ["long", "word"] if fits else ["word"]


def _sources(conv: ScalarConvolution) -> list[str]:
    if is_direct(conv):
        return ["direct"]
    return ["strip", "image"] if conv.out_width >= 8 else ["image", "strip"]


def _rounds(conv: ScalarConvolution, kind: str) -> list[int]:
    """Values of a pixel in a round."""
    step = 4 if kind == "low" else 1
    needed = -(-conv.values // step) * step
    lengths = range(step, min(needed, _LONGEST_ROUND) + 1, step)
    found = [n for n in lengths if needed % n == 0]
    return found


def _plans(conv: ScalarConvolution, fits: bool) -> Iterator[ScalarPlan]:
    for source in _sources(conv):
        for kind in _kinds(conv, fits):
            for pixels, channels in (block for block in BLOCKS[kind] if conv.out_channels % block[1] == 0):
                for unroll in _rounds(conv, kind):
                    yield ScalarPlan(source, kind, pixels, channels, unroll)


def depthwise_choice(layer: ScalarDepthwise) -> Choice:
    """What may be decided for a depthwise convolution."""
    # A tile takes about as much as two outputs beside its outputs.
    default = {"tile": min(layer.tiles, key=lambda tile: -(-layer.out_width // tile) * (tile + 0.6))}
    shape = {**fields(layer, "epilogue", "input_zero_point", "tile"), **layer.epilogue.kind}
    points = [{"tile": tile} for tile in layer.tiles]
    return Choice(Workload("scalar", "depthwise", shape), default, lambda: points)
