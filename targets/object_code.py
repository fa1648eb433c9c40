"""Object code of LLVM modules."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from ..passes._tvm import tvm

_DEBUG_RECORDS = re.compile(r"^ *#dbg_.*\n|^!llvm\.dbg\.cu = .*\n", re.MULTILINE)
_DEBUG_LOCATIONS = re.compile(r",? !dbg !\d+")
_CONVERSIONS = re.compile(r'^define weak [^\n]*\bsection "\.text\.tvm\.fp16\.conv"[^\n]*\{\n.*?^\}\n', re.MULTILINE | re.DOTALL)
_HALF = re.compile(r"\bhalf\b")


def object_code(module: tvm.runtime.Module) -> bytes:
    """The object file of an LLVM module.

    LLVM ends the whole process where a disk is full; so it writes to memory, and whoever wants a file writes it.
    """
    handle = os.memfd_create("object")
    with open(handle, "r+b") as memory:
        module.write_to_file(f"/proc/self/fd/{handle}", "o")
        return memory.read()


def code_alone(source: str) -> str:
    """LLVM's intermediate code without what TVM adds to the kernels themselves.

    That is debug information, which names variables of lowered kernels that nobody has written, and conversions of half floats
    where there are none: the code stays the same byte for byte, and LLVM takes three quarters of the time.

    Args:
        source: The text of a module of plain functions.
    """
    source = _DEBUG_LOCATIONS.sub("", _DEBUG_RECORDS.sub("", source))
    return source if _HALF.search(source) else _CONVERSIONS.sub("", source)


def object_of_source(source: str) -> bytes:
    """The object file of LLVM's intermediate code, as text."""
    with tempfile.TemporaryDirectory(prefix="tvmcompress-") as folder:
        path = Path(folder) / "code.ll"
        path.write_text(source)
        return object_code(tvm.runtime.load_module(str(path)))
