"""What an arena would hold while a program runs: whether every step finds what the steps before it have written."""

from __future__ import annotations

import numpy as np

from tvmcompress.targets.aot.arena import Arena
from tvmcompress.targets.aot.program import Program


def check_memory(program: Program, arena: Arena) -> None:
    """Run a program on numbers that stand for bytes, each written by one step; a byte overwritten too early is found."""
    memory = np.zeros(arena.plan.size, np.int64)
    written: dict[str, np.ndarray] = {}
    tag = 1

    def place(name: str) -> slice:
        start = arena.offset(name)
        assert start + program.tensors[name].nbytes <= arena.plan.size
        return slice(start, start + program.tensors[name].nbytes)

    def expected(name: str) -> np.ndarray:
        """The bytes of a tensor, put together from those of the tensors in whose memory it lies."""
        root, offset = program.place(name)
        return written[root][offset : offset + program.tensors[name].nbytes]

    def write(name: str) -> None:
        nonlocal tag
        root, offset = program.place(name)
        size = program.tensors[name].nbytes
        whole = written.setdefault(root, np.zeros(program.tensors[root].nbytes, np.int64))
        whole[offset : offset + size] = np.arange(tag, tag + size)
        tag += size
        memory[place(name)] = expected(name)

    for name in program.inputs:
        write(name)
    for step, workspaces in zip(program.steps, arena.workspaces, strict=True):
        arguments = [name for name in step.arguments if name in program.tensors]
        for name in arguments:
            np.testing.assert_array_equal(memory[place(name)], expected(name), err_msg=f"{name} at {step.layer}")
        own = np.zeros(arena.plan.size, np.int64)
        for name in arguments:
            own[place(name)] = 1
        for name in workspaces:
            start = arena.plan.offsets[name]
            region = slice(start, start + arena.buffers[name].size)
            assert not own[region].any(), f"a workspace of {step.layer} lies on another tensor of it"
            own[region] = 1
            memory[region] = -1
        for name in step.results:
            if step.inplace is None or arena.offset(name) != arena.offset(step.inplace):
                assert not own[place(name)].any(), f"the result of {step.layer} lies on what it reads"
            write(name)
    for name in program.outputs:
        np.testing.assert_array_equal(memory[place(name)], expected(name))
