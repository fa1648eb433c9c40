"""Which argument's memory a function may write its result to."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm_ffi
from tvm.s_tir.stmt import SBlock

from ...passes._tvm import tirx, tvm
from .walk import find


def inplace_argument(func: tirx.PrimFunc) -> int | None:
    """The argument that is read only where, and only at the index at which, the result is written.

    Element i of the result is then written after element i of that argument was last read, whatever the order of the
    elements. That holds for element-wise functions and for the second operand of an addition behind a convolution.

    Args:
        func: A function of buffers, the last of them its result.

    Returns:
        The position of the argument, or None.
    """
    blocks = [block for block in find(func.body, SBlock) if block.name_hint != "root"]
    result = func.params[-1]
    writers = [block for block in blocks if any(region.source.same_as(result) for region in block.writes)]
    if len(writers) != 1 or any(iv.iter_type != 0 for iv in writers[0].iter_vars):
        return None
    stores = _stores(writers[0].body, result)
    if len(stores) != 1:
        return None
    for position, param in enumerate(func.params[:-1]):
        if _bytes(param) != _bytes(result) or str(param.dtype) != str(result.dtype):
            continue
        if [int(dim) for dim in param.shape] != [int(dim) for dim in result.shape]:
            continue
        reads = [(block, load) for block in blocks for load in _loads(block, param)]
        if reads and all(block.same_as(writers[0]) and _same(load.indices, stores[0].indices) for block, load in reads):
            return position
    return None


def _stores(stmt: Any, buffer: Any) -> list[Any]:
    return [store for store in find(stmt, tirx.BufferStore) if store.buffer.same_as(buffer)]


def _loads(block: Any, buffer: Any) -> list[Any]:
    parts = [block.body] if block.init is None else [block.body, block.init]
    return [load for part in parts for load in find(part, tvm.ir.TensorLoad) if load.source.same_as(buffer)]


def _same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(tvm_ffi.structural_equal(a, b) for a, b in zip(one, other))


def _bytes(buffer: Any) -> int:
    count = int(np.prod([int(dim) for dim in buffer.shape], dtype=np.int64))
    return count * (tvm.DataType(str(buffer.dtype)).bits // 8)
