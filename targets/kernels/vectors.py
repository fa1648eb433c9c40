"""Expressions over words and vectors of sixteen bytes that every core with such registers has."""

from __future__ import annotations

import functools

from tvm import tirx
from tvm.target import codegen

VECTOR = 16
"""Bytes of a vector register."""


@functools.cache
def _intrinsic(name: str) -> int:
    return int(codegen.llvm_lookup_intrinsic_id(name))


def intrinsic(dtype: str, name: str, *args: tirx.PrimExpr) -> tirx.PrimExpr:
    """A call of one of LLVM's intrinsics."""
    return tirx.call_llvm_pure_intrin(dtype, tirx.const(_intrinsic(name), "uint32"), *args)


def i32(value: int) -> tirx.PrimExpr:
    """A constant word; values above 2**31 wrap."""
    value &= 0xFFFFFFFF
    return tirx.const(value - (1 << 32) if value >> 31 else value, "int32")


def splat(value: int, lanes: int = 4) -> tirx.PrimExpr:
    """A constant in every 32-bit lane."""
    return tirx.Broadcast(i32(value), lanes)


def vector_start(index: tirx.PrimExpr, elements: int) -> tirx.PrimExpr:
    """Where the vector of this number begins among at least sixteen elements; the last one overlaps the one before."""
    return index * VECTOR if elements % VECTOR == 0 else tirx.min(index * VECTOR, elements - VECTOR)


def load_bytes(buffer: tirx.Buffer, offset: tirx.PrimExpr) -> tirx.PrimExpr:
    """Sixteen bytes of an int8 buffer; the address need not be aligned."""
    return buffer.vload([offset], "int8x16")


def load_run(buffer: tirx.Buffer, offset: tirx.PrimExpr) -> tirx.PrimExpr:
    """Sixteen bytes of an int8 or int32 buffer at an offset in its elements."""
    return load_bytes(buffer, offset) if str(buffer.dtype) == "int8" else as_bytes(load_words(buffer, offset))


def load_words(buffer: tirx.Buffer, offset: tirx.PrimExpr) -> tirx.PrimExpr:
    """Four words of an int32 buffer."""
    return buffer.vload([offset], "int32x4")


def as_bytes(words: tirx.PrimExpr) -> tirx.PrimExpr:
    """The same 128 bits as bytes."""
    return tirx.reinterpret("int8x16", words)


def as_words(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """The same 128 bits as words."""
    return tirx.reinterpret("int32x4", value)
