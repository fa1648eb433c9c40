"""The planned arena as a record, for people: which bytes belong to which layer's result, and when."""

from __future__ import annotations

from ..measurement import ArenaBuffer, MemoryPlan
from .arena import Arena
from .plan import Buffer
from .program import Program


def memory_plan(program: Program, arena: Arena) -> MemoryPlan:
    """The record of an arena.

    Args:
        program: The calls.
        arena: Where their tensors lie.
    """
    made_by = {name: step.layer for step in program.steps for name in step.results}
    made_by.update({name: name for name in program.inputs})
    holds: dict[str, list[str]] = {name: [] for name in arena.buffers}
    for tensor, (buffer, _) in arena.homes.items():
        if buffer in holds and tensor in made_by and made_by[tensor] not in holds[buffer]:
            holds[buffer].append(made_by[tensor])
    for step, names in zip(program.steps, arena.workspaces):
        for name in names:
            holds[name] = [step.layer]
    workspaces = {name for names in arena.workspaces for name in names}
    return MemoryPlan(
        steps=tuple(step.layer for step in program.steps),
        buffers=tuple(
            ArenaBuffer(
                holds=tuple(holds[name]),
                workspace=name in workspaces,
                offset=arena.plan.offsets[name],
                bytes=bytes_,
                first=max(first, 0),
                last=min(last, len(program.steps) - 1),
            )
            for name, buffer in arena.buffers.items()
            for bytes_, first, last in _lives(buffer)
        ),
    )


def _lives(buffer: Buffer) -> list[tuple[int, int, int]]:
    """Bytes, first and last step: twice for a buffer that shrinks."""
    if buffer.shrinks is None:
        return [(buffer.size, buffer.first, buffer.last)]
    step, left = buffer.shrinks
    return [(buffer.size, buffer.first, step - 1), (left, step, buffer.last)]
