"""Object code of LLVM modules."""

from __future__ import annotations

import os

from ..passes._tvm import tvm


def object_code(module: tvm.runtime.Module) -> bytes:
    """The object file of an LLVM module.

    LLVM ends the whole process where a disk is full; so it writes to memory, and whoever wants a file writes it.
    """
    handle = os.memfd_create("object")
    with open(handle, "r+b") as memory:
        module.write_to_file(f"/proc/self/fd/{handle}", "o")
        return memory.read()
