"""What the schedule template of x86 finds in a function: its blocks, and the sizes that decisions depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from .kernels.intrinsics import BLOCK_ANNOTATION, DOT_ANNOTATION, DOTS, HIGH_ANNOTATION, LANES_ANNOTATION, Dot

VECTOR = 8
"""32-bit lanes of an AVX2 register."""

_REDUCTION = 2


class NotScheduledError(Exception):
    """The function does not have the template's pattern; the message says why."""


@dataclass(frozen=True)
class Layer:
    """The sizes of a function that has the pattern.

    Attributes:
        outputs: Extents of its sum, channels last, with channels and positions that only fill up a vector or a tile.
        width: Positions in a row that are kept.
        cropped: Whether a block behind leaves channels out, or gives the result another shape.
        sums: Extents of its reductions, without the group that a dot product instruction adds up.
        dot: The dot product instruction to use, None for ordinary arithmetic.
        packs_rows: Whether the block before the reduction packs rows for a depthwise convolution.
        blocked: Channels of a block of weights, which a vector must not leave; 0 where weights lie in no blocks.
        lanes: 32-bit numbers of a register.
        before: Elements that are written before the reduction: the padded, widened or packed input; 0 for none.
        input_bytes: Of an element that the reduction reads.
        stages: Blocks of the tail that stay blocks, without upper halves of products.
        dtypes: Of the parameters.
    """

    outputs: tuple[int, ...]
    width: int
    cropped: bool
    sums: tuple[int, ...]
    dot: Dot | None
    packs_rows: bool
    blocked: int
    lanes: int
    before: int
    stages: int
    dtypes: str

    @property
    def vector(self) -> int:
        """Lanes of a vector of output channels."""
        return self.dot.lanes if self.dot is not None else self.blocked or VECTOR

    @property
    def work(self) -> int:
        """Multiply-accumulates, or other innermost operations."""
        return math.prod(self.outputs) * math.prod(self.sums) * (1 if self.dot is None else self.dot.group)

    @property
    def channels(self) -> int:
        """Extent of the last axis."""
        return self.outputs[-1]

    @property
    def positions(self) -> int:
        """Positions in a row, with those that fill up a tile."""
        return self.outputs[-2] if len(self.outputs) > 1 else 1

    @property
    def rows(self) -> tuple[int, ...]:
        """Extents of the axes before positions."""
        return self.outputs[:-2]

    @property
    def weight_bytes(self) -> int:
        """Size of the weights."""
        per_weight = 4 if self.dot is None else 4 // self.dot.group
        return self.work // math.prod(self.outputs[:-1]) * per_weight


@dataclass(frozen=True)
class Blocks:
    """The blocks of such a function in a schedule.

    Attributes:
        before: The padding, or the packing of rows; None where the input is read as it is.
        main: The reduction.
        stages: Blocks between it and the tail that stay blocks.
        tail: The last block on all its channels, which follows in its tiles.
        late: Blocks behind the tail that stay blocks.
        crop: The block that writes the output, where the tail does not.
    """

    before: Any | None
    main: Any
    stages: list[Any]
    tail: Any
    late: list[Any]
    crop: Any | None


def find_layer(schedule: Schedule) -> tuple[Layer, Blocks]:
    """One block before the reduction (padding), one behind (the tail) and one that leaves out what only fills up vectors,
    everything else inlined, in place.

    Raises:
        NotScheduledError: The function has no reduction or several, or its output does not follow the pattern.
    """
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    reductions = [index for index, block in enumerate(blocks) if is_reduction(schedule, block)]
    if len(reductions) != 1:
        raise NotScheduledError(f"the function has {len(reductions)} reductions, not one")
    (index,) = reductions
    before, main, after = blocks[:index], blocks[index], blocks[index + 1 :]
    for block in before[:-1]:
        schedule.compute_inline(block)
    axes = schedule.get(main).iter_vars
    sums = [int(iv.dom.extent) for iv in axes if iv.iter_type == _REDUCTION]
    outputs = [int(iv.dom.extent) for iv in axes if iv.iter_type != _REDUCTION]
    whole = _on_all_channels(schedule, after, outputs)
    near, far = after[:whole], after[whole:]
    tail = near.pop() if near else schedule.cache_write(main, 0, "global")
    crop = far.pop() if far else None
    kept = []
    for blocks_behind in (near, far):
        kept.append([block for block in blocks_behind if stays(schedule, block)])
        for block in blocks_behind:
            if block not in kept[-1]:
                schedule.compute_inline(block)
    written = extents(schedule, tail)
    annotations = schedule.get(main).annotations
    intrinsic = str(annotations.get(DOT_ANNOTATION, ""))
    dot = next((dot for dot in DOTS if intrinsic in (dot.broadcast, dot.packed)), None)
    packs_rows = dot is not None and intrinsic == dot.packed
    layer = Layer(
        outputs=tuple(outputs),
        width=written[-2] if len(written) > 1 else 1,
        cropped=crop is not None,
        sums=tuple(sums if dot is None or packs_rows else sums[:-1]),
        dot=dot,
        packs_rows=packs_rows,
        blocked=dot.lanes if dot is not None else int(annotations.get(BLOCK_ANNOTATION, 0)),
        lanes=dot.lanes if dot is not None else int(annotations.get(LANES_ANNOTATION, VECTOR)),
        before=math.prod(extents(schedule, before[-1])) if before else 0,
        stages=len([block for block in kept[0] if not is_high(schedule, block)]),
        dtypes=dtypes_of(schedule.mod),
    )
    return layer, Blocks(before[-1] if before else None, main, kept[0], tail, kept[1], crop)


def _on_all_channels(schedule: Schedule, after: list[Any], outputs: list[int]) -> int:
    """How many of the blocks behind a sum have its shape, but for positions that only fill up a tile; none of these where
    an intrinsic takes whole vectors."""
    count, whole = 0, any(is_high(schedule, block) for block in after)
    for block in after:
        shape = extents(schedule, block)
        same_rows = shape[:-2] == outputs[:-2] and shape[-1:] == outputs[-1:] and len(shape) == len(outputs)
        if not same_rows or (len(shape) > 1 and (shape[-2] != outputs[-2] if whole else shape[-2] > outputs[-2])):
            break
        count += 1
    return count


def lanes_of(mod: tvm.IRModule) -> int:
    """How many floats a register holds of the CPU that a function, `main` of a module, was lowered for."""
    return int((mod["main"].attrs or {}).get(LANES_ANNOTATION, VECTOR))


def dtypes_of(mod: tvm.IRModule) -> str:
    """The dtypes of a function's parameters, in their order."""
    return " ".join(str(param.ty.dtype) for param in mod["main"].params)


def extents(schedule: Schedule, block: Any) -> list[int]:
    """Extents of the axes of a block."""
    return [int(iv.dom.extent) for iv in schedule.get(block).iter_vars]


def is_reduction(schedule: Schedule, block: Any) -> bool:
    """Whether a block sums up."""
    return any(iv.iter_type == _REDUCTION for iv in schedule.get(block).iter_vars)


def stays(schedule: Schedule, block: Any) -> bool:
    """Whether a block of the tail is a stage of its own.

    An int32 sum that is widened afterwards: inlined, the simplifier would widen its operands instead, and the product
    behind it would become a full 64-bit one.
    """
    return str(schedule.get(block).writes[0].source.ty.dtype) == "int32"


def is_high(schedule: Schedule, block: Any) -> bool:
    """Whether a block takes the upper halves of products, for which there is an intrinsic."""
    return HIGH_ANNOTATION in schedule.get(block).annotations


def extent_of(schedule: Schedule, loop: Any) -> int:
    """How often a loop runs.

    Raises:
        NotScheduledError: It changes from tile to tile.
    """
    extent = schedule.get(loop).extent
    if not isinstance(extent, int | tvm.tirx.IntImm):
        raise NotScheduledError("how long a loop is changes from tile to tile")
    return int(extent)
