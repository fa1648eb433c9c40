"""The arena of a program: lifetimes of its tensors and workspaces, and where each lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .plan import Buffer, Plan, plan
from .program import Program


@dataclass(frozen=True)
class Arena:
    """A planned arena.

    Attributes:
        plan: Offsets by buffer.
        homes: For each tensor the buffer that it lies in.
        workspaces: For each step the names of its workspace buffers.
        buffers: The buffers with their lifetimes.
    """

    plan: Plan
    homes: dict[str, str]
    workspaces: list[tuple[str, ...]]
    buffers: dict[str, Buffer]

    def workspace_bytes(self, program: Program) -> dict[str, int]:
        """For each function that `program` calls the bytes of its workspaces."""
        return {
            step.function: sum(self.buffers[name].size for name in names) for step, names in zip(program.steps, self.workspaces)
        }

    def offset(self, tensor: str) -> int:
        """Offset of a tensor."""
        return self.plan.offsets[self.homes[tensor]]


def plan_arena(program: Program, workspaces: Mapping[str, tuple[int, ...]]) -> Arena:
    """Plan the arena.

    Args:
        program: The program.
        workspaces: For each function the bytes of its workspaces.
    """
    end = len(program.steps)
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
        touch(name, end)
    homes = {name: program.memory(name) for name in program.tensors}
    size = {memory: program.tensors[memory].nbytes for memory in first}
    merged: dict[str, str] = {}

    def root(memory: str) -> str:
        while memory in merged:
            memory = merged[memory]
        return memory

    for index, step in enumerate(program.steps):
        if step.inplace is None or step.inplace not in program.tensors:
            continue
        source, result = root(program.memory(step.inplace)), program.memory(step.results[0])
        others = [root(program.memory(name)) for name in step.arguments if name in program.tensors and name != step.inplace]
        if last[source] == index and size[source] >= size[result] and source not in others:
            merged[result] = source
            last[source] = max(last[source], last[result])
    buffers = {m: Buffer(size[m], first[m], last[m]) for m in first if m not in merged}
    names: list[tuple[str, ...]] = []
    for index, step in enumerate(program.steps):
        own = tuple(f"workspace{index}_{k}" for k in range(len(workspaces.get(step.function, ()))))
        for name, bytes_ in zip(own, workspaces.get(step.function, ())):
            buffers[name] = Buffer(bytes_, index, index)
        names.append(own)
    return Arena(plan(buffers), {name: root(memory) for name, memory in homes.items()}, names, buffers)
