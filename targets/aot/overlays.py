"""Tensors that may overlap although both are alive, because one is read ahead of where the other is written.

A layer that is computed patch by patch reads its input and writes its result in step, from top to bottom: what is written lies
behind what is still to be read, if the result starts early enough before the input. The two then share memory, as a file does
that is filtered in place.
"""

from __future__ import annotations

from collections.abc import Mapping

from .plan import Buffer, align
from .program import Program

Homes = Mapping[str, tuple[str, int]]


def overlays(program: Program, homes: Homes, buffers: Mapping[str, Buffer]) -> dict[str, tuple[str, int]]:
    """Pairs of buffers that may overlap.

    Args:
        program: The program.
        homes: For each tensor the buffer that it lies in, and the offset there.
        buffers: The buffers of tensors, with their lifetimes.

    Returns:
        For a buffer that is written, the buffer that is read meanwhile and the bytes by which it must start later. Each buffer
        appears once; only pairs that save memory are listed, those that save most first.
    """
    reads, writes = _accesses(program, homes)
    outputs = {homes[name][0] for name in program.outputs}
    found = []
    for low, written in writes.items():
        for high, read in reads.items():
            one, other = buffers.get(low), buffers.get(high)
            if low == high or one is None or other is None or high in outputs:
                continue
            if not other.first < one.first < other.last < one.last or writes.get(high, [(-1, 0)])[-1][0] >= one.first:
                continue
            lead = align(max(_lead(written, read), 1))
            saved = align(one.size) + align(other.size) - max(align(one.size), lead + align(other.size))
            if saved > 0:
                found.append((-saved, low, high, lead))
    pairs: dict[str, tuple[str, int]] = {}
    taken: set[str] = set()
    for _, low, high, lead in sorted(found):
        if not {low, high} & taken:
            pairs[low] = (high, lead)
            taken |= {low, high}
    return pairs


def _accesses(program: Program, homes: Homes) -> tuple[dict[str, list[tuple[int, int]]], dict[str, list[tuple[int, int]]]]:
    """Of each buffer, in the order of steps: (step, first byte read) and (step, end of the bytes written)."""
    reads: dict[str, list[tuple[int, int]]] = {}
    writes: dict[str, list[tuple[int, int]]] = {}
    for index, step in enumerate(program.steps):
        for name in step.arguments:
            if name in homes:
                buffer, start = homes[name]
                reads.setdefault(buffer, []).append((index, start))
        for name in step.results:
            buffer, start = homes[name]
            writes.setdefault(buffer, []).append((index, start + program.tensors[name].nbytes))
    return reads, writes


def _lead(written: list[tuple[int, int]], read: list[tuple[int, int]]) -> int:
    """The bytes by which the buffer read must start behind the one written.

    What a step writes must end before the first byte that it, or a later step, reads.
    """
    lead = 0
    for step, end in written:
        pending = [start for at, start in read if at >= step]
        if pending:
            lead = max(lead, end - min(pending))
    return lead
