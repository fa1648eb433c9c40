"""Expressions over 32-bit words that become single instructions of the Armv7E-M DSP extension.

A word holds two signed halfwords, "bottom" (bits 0 to 15) and "top" (bits 16 to 31). Names follow the Arm Architecture
Reference Manual (DDI 0403, chapter A7).
"""

from __future__ import annotations

from tvm import tirx

from ...kernels.vectors import i32, intrinsic


def _call(name: str, *args: tirx.PrimExpr) -> tirx.PrimExpr:
    return intrinsic("int32", name, *args)


def smlad(a: tirx.PrimExpr, b: tirx.PrimExpr, c: tirx.PrimExpr) -> tirx.PrimExpr:
    """c + bottom(a) * bottom(b) + top(a) * top(b)."""
    return _call("llvm.arm.smlad", a, b, c)


def smlabt(a: tirx.PrimExpr, b: tirx.PrimExpr, c: tirx.PrimExpr) -> tirx.PrimExpr:
    """c + bottom(a) * top(b)."""
    return _call("llvm.arm.smlabt", a, b, c)


def smlatb(a: tirx.PrimExpr, b: tirx.PrimExpr, c: tirx.PrimExpr) -> tirx.PrimExpr:
    """c + top(a) * bottom(b)."""
    return _call("llvm.arm.smlatb", a, b, c)


def even_bytes(word: tirx.PrimExpr) -> tirx.PrimExpr:
    """Bytes 0 and 2 of a word, sign-extended to halfwords (SXTB16)."""
    return _call("llvm.arm.sxtb16", word)


def odd_bytes(word: tirx.PrimExpr) -> tirx.PrimExpr:
    """Bytes 1 and 3 of a word, sign-extended to halfwords (SXTB16 with a rotation)."""
    return _call("llvm.arm.sxtb16", _call("llvm.fshl", word, word, i32(24)))


def sadd16(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """Halfword-wise sum."""
    return _call("llvm.arm.sadd16", a, b)


def ssub16(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """Halfword-wise difference."""
    return _call("llvm.arm.ssub16", a, b)


def hidden_zero(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """Zero, computed from a value below 2**16 so that LLVM does not know it (SMULTT).

    Added to an index, it keeps loads in the loop of which `value` is the variable: hoisted, they would be spilled.
    """
    return _call("llvm.arm.smultt", value, value)


def qadd(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """a + b, saturated. Used where no overflow can happen too: it keeps LLVM from widening the sum to 64 bits."""
    return _call("llvm.arm.qadd", a, b)


def qsub(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """a - b, saturated; for the same reason as `qadd`."""
    return _call("llvm.arm.qsub", a, b)


def ssat8(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """`value` saturated to a signed byte, int8."""
    return _call("llvm.arm.ssat", value, i32(8)).astype("int8")


def pack_bottoms(low: tirx.PrimExpr | int, high: tirx.PrimExpr | int) -> tirx.PrimExpr:
    """bottom(low) as bottom, bottom(high) as top (PKHBT). A Python integer is a constant word."""
    bottom = i32(low & 0xFFFF) if isinstance(low, int) else low & i32(0xFFFF)
    # Shifted here: TVM's simplifier would shift a constant beyond 32 bits.
    top = i32(high << 16) if isinstance(high, int) else high << i32(16)
    return bottom | top


def pack_tops(low: tirx.PrimExpr | int, high: tirx.PrimExpr | int) -> tirx.PrimExpr:
    """top(low) as bottom, top(high) as top (PKHTB). A Python integer is a constant word."""
    bottom = i32(low >> 16 & 0xFFFF) if isinstance(low, int) else (low >> i32(16)) & i32(0xFFFF)
    top = i32(high & 0xFFFF0000) if isinstance(high, int) else high & i32(0xFFFF0000)
    return bottom | top


def load_word(buffer: tirx.Buffer, offset: tirx.PrimExpr) -> tirx.PrimExpr:
    """Four bytes of an int8 buffer as a word; the address need not be aligned."""
    return tirx.reinterpret("int32", buffer.vload([offset], "int8x4"))


def multiply_high(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """(a * b) >> 32 (SMMUL)."""
    return ((a.astype("int64") * b.astype("int64")) >> tirx.const(32, "int64")).astype("int32")


def multiply_high_rounded(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """(a * b + 2**31) >> 32 (SMMULR)."""
    product = a.astype("int64") * b.astype("int64")
    return ((product + tirx.const(1 << 31, "int64")) >> tirx.const(32, "int64")).astype("int32")


def multiply_high_add_rounded(a: tirx.PrimExpr, b: tirx.PrimExpr, c: int) -> tirx.PrimExpr:
    """(a * b + (c << 32) + 2**31) >> 32 (SMMLAR)."""
    product = a.astype("int64") * b.astype("int64")
    return ((product + tirx.const((c << 32) + (1 << 31), "int64")) >> tirx.const(32, "int64")).astype("int32")
