"""The arena of a program: lifetimes of its tensors and workspaces, and where each lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .overlays import overlays
from .plan import Buffer, Plan, plan
from .program import Program


@dataclass(frozen=True)
class Arena:
    """A planned arena.

    Attributes:
        plan: Offsets by buffer.
        homes: For each tensor the buffer that it lies in, and the offset there.
        workspaces: For each step the names of its workspace buffers.
        buffers: The buffers with their lifetimes.
    """

    plan: Plan
    homes: dict[str, tuple[str, int]]
    workspaces: list[tuple[str, ...]]
    buffers: dict[str, Buffer]

    def workspace_bytes(self, program: Program) -> dict[str, int]:
        """For each function that `program` calls the bytes of its workspaces."""
        return {
            step.function: sum(self.buffers[name].size for name in names) for step, names in zip(program.steps, self.workspaces)
        }

    def offset(self, tensor: str) -> int:
        """Offset of a tensor."""
        buffer, inside = self.homes[tensor]
        return self.plan.offsets[buffer] + inside


def plan_arena(program: Program, workspaces: Mapping[str, tuple[int, ...]]) -> Arena:
    """Plan the arena.

    Args:
        program: The program.
        workspaces: For each function the bytes of its workspaces.
    """
    first, last = _lifetimes(program)
    homes = {name: program.place(name) for name in program.tensors}
    merged = _written_in_place(program, first, last)

    def root(memory: str) -> str:
        while memory in merged:
            memory = merged[memory]
        return memory

    homes = {name: (root(memory), offset) for name, (memory, offset) in homes.items()}
    size = {memory: program.tensors[memory].nbytes for memory in first}
    buffers = {m: Buffer(size[m], first[m], last[m]) for m in first if m not in merged}
    own: dict[str, Buffer] = {}
    names: list[tuple[str, ...]] = []
    for index, step in enumerate(program.steps):
        sizes = workspaces.get(step.function, ())
        names.append(tuple(f"workspace{index}_{k}" for k in range(len(sizes))))
        own.update({name: Buffer(bytes_, index, index) for name, bytes_ in zip(names[-1], sizes)})
    best = Arena(plan({**buffers, **own}), homes, names, {**buffers, **own})
    shared = overlays(program, homes, buffers)
    if not shared:
        return best
    for low, (high, lead) in shared.items():
        one, other = buffers[low], buffers.pop(high)
        whole = max(one.size, lead + other.size)
        shrinks = (other.last + 1, one.size) if one.size < whole else None
        buffers[low] = Buffer(whole, other.first, one.last, shrinks)
    leads = {high: (low, lead) for low, (high, lead) in shared.items()}
    moved = {}
    for name, (buffer, offset) in homes.items():
        low, lead = leads.get(buffer, (buffer, 0))
        moved[name] = (low, lead + offset)
    other_plan = Arena(plan({**buffers, **own}), moved, names, {**buffers, **own})
    return other_plan if other_plan.plan.size < best.plan.size else best


def _lifetimes(program: Program) -> tuple[dict[str, int], dict[str, int]]:
    """The first and the last step at which each tensor that is memory of its own is touched."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}

    def touch(name: str, step: int) -> None:
        memory = program.memory(name)
        first.setdefault(memory, step)
        last[memory] = max(last.get(memory, step), step)

    for name in program.inputs:
        touch(name, -1)
    for index, step in enumerate(program.steps):
        for name in (*step.arguments, *step.results):
            if name in program.tensors:
                touch(name, index)
    for name in program.outputs:
        touch(name, len(program.steps))
    return first, last


def _written_in_place(program: Program, first: Mapping[str, int], last: dict[str, int]) -> dict[str, str]:
    """Results that take the memory of an argument which dies with their step, with that memory; `last` is prolonged."""
    merged: dict[str, str] = {}

    def root(memory: str) -> str:
        while memory in merged:
            memory = merged[memory]
        return memory

    for index, step in enumerate(program.steps):
        if step.inplace is None or step.inplace not in program.tensors:
            continue
        # What is only a part of its memory has neighbours that are alive.
        if not (program.is_whole(step.inplace) and program.is_whole(step.results[0])):
            continue
        source, result = root(program.memory(step.inplace)), program.memory(step.results[0])
        others = [root(program.memory(name)) for name in step.arguments if name in program.tensors and name != step.inplace]
        fits = program.tensors[source].nbytes >= program.tensors[result].nbytes
        if last[source] == index and first[result] == index and fits and source not in others:
            merged[result] = source
            last[source] = max(last[source], last[result])
    return merged
