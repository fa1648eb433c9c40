"""Expressions that become single instructions of Helium, the M-profile Vector Extension (MVE).

Names follow the Armv8-M Architecture Reference Manual (DDI 0553, chapter C2). Vectors are int8x16, int16x8 or int32x4.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.vectors import as_words, i32, intrinsic, splat


def _call(dtype: str, name: str, *args: tirx.PrimExpr) -> tirx.PrimExpr:
    return intrinsic(dtype, f"llvm.arm.mve.{name}", *args)


def vector(*values: tirx.PrimExpr) -> tirx.PrimExpr:
    """Four int32 scalars as a vector."""
    return tirx.Shuffle(list(values), [i32(i) for i in range(len(values))])


def vmladava(acc: tirx.PrimExpr, a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """acc plus the sum of the products of all lanes, in a general register."""
    return _call("int32", "vmldava", i32(0), i32(0), i32(0), acc, a, b)


def vqrdmulh(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """(2 * a * b + 2**31) >> 32 by lane, saturating."""
    return _call("int32x4", "vqrdmulh", a, b)


def vqdmulh(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """(2 * a * b) >> 32 by lane, saturating."""
    return _call("int32x4", "vqdmulh", a, b)


def vqrdmlash(a: tirx.PrimExpr, b: tirx.PrimExpr, c: int | tirx.PrimExpr) -> tirx.PrimExpr:
    """(2 * a * b + (c << 32) + 2**31) >> 32 by lane, saturating; c is a scalar."""
    return _call("int32x4", "vqrdmlash", a, b, i32(c) if isinstance(c, int) else c)


def gather_words(buffer: tirx.Buffer, start: int, indices: tirx.PrimExpr) -> tirx.PrimExpr:
    """The words `start + index` of an int32 buffer, for four indices of either sign."""
    base = tirx.address_of(buffer[start])
    return _call("int32x4", "vldr.gather.offset", base, indices, i32(32), i32(2), i32(0))


def gather_bytes(buffer: tirx.Buffer, start: tirx.PrimExpr, offsets: tirx.PrimExpr) -> tirx.PrimExpr:
    """Four bytes of an int8 buffer as int32x4, each `offsets` behind `start`."""
    base = tirx.address_of(buffer[start])
    return _call("int32x4", "vldr.gather.offset", base, offsets, i32(8), i32(0), i32(0))


def vmull(a: tirx.PrimExpr, b: tirx.PrimExpr, top: int) -> tirx.PrimExpr:
    """int16x8 products of the even bytes of two vectors (VMULLB), or of the odd ones (VMULLT)."""
    return _call("int16x8", "vmull.int", a, b, i32(0), i32(top))


def widened(halves: tirx.PrimExpr, top: int) -> tirx.PrimExpr:
    """The even halfwords of a vector as int32x4 (VMOVLB), or the odd ones (VMOVLT)."""
    words = as_words(halves)
    return words >> splat(16) if top else (words << splat(16)) >> splat(16)


def narrowed(a: tirx.PrimExpr, b: tirx.PrimExpr, c: tirx.PrimExpr, d: tirx.PrimExpr) -> tirx.PrimExpr:
    """Four int32x4 as int8x16, saturated: lane 4 i is a[i], 4 i + 1 is c[i], 4 i + 2 is b[i], 4 i + 3 is d[i]."""
    even, odd = _interleaved("int16x8", a, b), _interleaved("int16x8", c, d)
    return _interleaved("int8x16", even, odd)


def saturated(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """int32x4 saturated to int8x4."""
    return narrowed_words(value).astype("int8x4")


def _narrowed(dtype: str, value: tirx.PrimExpr) -> tirx.PrimExpr:
    """A vector saturated to half its width, in the even lanes of the result (VQMOVNB)."""
    return _call(dtype, "vqmovn", tirx.reinterpret(dtype, value), value, i32(0), i32(0), i32(0))


def _interleaved(dtype: str, even: tirx.PrimExpr, odd: tirx.PrimExpr) -> tirx.PrimExpr:
    """Two vectors saturated to half their width, into the even (VQMOVNB) and the odd (VQMOVNT) lanes of one."""
    return _call(dtype, "vqmovn", _narrowed(dtype, even), odd, i32(0), i32(0), i32(1))


def vmulh(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """(a * b) >> 32 by lane, of unsigned lanes."""
    return _call("int32x4", "vmulh", a, b, i32(1))


def vrshl(value: tirx.PrimExpr, shift: tirx.PrimExpr) -> tirx.PrimExpr:
    """int32x4 shifted to the left by a scalar; to the right where that is negative, rounded, halves up."""
    return _call("int32x4", "vshl.scalar", value, shift, i32(0), i32(1), i32(0))


def narrowed_words(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """int32x4 saturated to the range of int8, in the low bytes of the words; the others hold anything."""
    return as_words(_narrowed("int8x16", _narrowed("int16x8", value)))


def scatter_bytes(buffer: tirx.Buffer, start: tirx.PrimExpr, offsets: tirx.PrimExpr, words: tirx.PrimExpr) -> None:
    """A statement that stores the low bytes of an int32x4 in an int8 buffer, each `offsets` behind `start`."""
    base = tirx.address_of(buffer[start])
    T.evaluate(_effect("vstr.scatter.offset", base, offsets, words, i32(8), i32(0)))


def store_interleaved(buffer: tirx.Buffer, start: tirx.PrimExpr, rows: list[tirx.PrimExpr]) -> None:
    """Statements that store four int8x16 in an int32 buffer: word i has byte i of each (VST4)."""
    base = tirx.address_of(buffer[start])
    for stage in range(4):
        T.evaluate(_effect("vst4q", base, *rows, i32(stage)))


def _effect(name: str, *args: tirx.PrimExpr) -> tirx.PrimExpr:
    return tirx.call_llvm_intrin("void", f"llvm.arm.mve.{name}", *args)
