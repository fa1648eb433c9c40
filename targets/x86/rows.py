"""The schedule of functions that sum over rows several times: one row after the other, all of it in vectors."""

from __future__ import annotations

import math

from tvm.s_tir import Schedule

from ...passes._tvm import tvm
from .kernels.rows import ROWS_ANNOTATION
from .layer import extent_of, extents, is_reduction

_PARALLEL_ELEMENTS = 100_000
"""Below, starting threads costs more than it brings."""


def sums_over_rows(mod: tvm.IRModule) -> bool:
    """Whether the function, `main` of a module, is one of `kernels.rows`."""
    schedule = Schedule(mod)
    try:
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    except Exception:  # what is written by hand may have no root
        return False
    return any(ROWS_ANNOTATION in schedule.get(block).annotations for block in blocks)


def schedule_rows(mod: tvm.IRModule) -> tvm.IRModule:
    """The function with every block in the loop over rows of the last one."""
    schedule = Schedule(mod)
    *blocks, last = schedule.get_child_blocks(schedule.get_sblock("root"))
    *rows, _ = schedule.get_loops(last)
    if rows:
        row = schedule.fuse(*rows)
        for block in reversed(blocks):
            schedule.compute_at(block, row, preserve_unit_loops=True)
        if math.prod(extents(schedule, last)) >= _PARALLEL_ELEMENTS:
            schedule.parallel(row)
    for block in (*blocks, last):
        inner = schedule.get_loops(block)[len(rows) > 0 :]
        if is_reduction(schedule, block):
            *_, lane, part = inner
            schedule.reorder(part, lane)
            schedule.vectorize(lane)
            schedule.decompose_reduction(block, part)
            continue
        lanes = extent_of(schedule, inner[-1])
        # LLVM makes vectors of loops with a border.
        if block == last:
            if lanes % 16 == 0:
                schedule.vectorize(schedule.split(inner[-1], [None, 16])[1])
        elif lanes > 1 and not _has_border(schedule, block):
            schedule.vectorize(inner[-1])
    return schedule.mod


def _has_border(schedule: Schedule, block: object) -> bool:
    return "if_then_else" in str(schedule.get(block).body)
