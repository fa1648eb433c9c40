"""Expressions that become single instructions of Armv8-A's vector unit (Advanced SIMD, "NEON").

Names follow the Arm Architecture Reference Manual (DDI 0487, chapter C7). What LLVM has a pattern for is written in terms of
simpler operations: SMLAL is a sum with SMULL, SADALP one with SADDLP, SSRA one with a shift, and the forms that read the upper
halves of their operands (SMULL2, SQXTN2) follow from `high` and `joined`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from ...kernels.vectors import i32, intrinsic


def _call(dtype: str, name: str, *args: tirx.PrimExpr) -> tirx.PrimExpr:
    return intrinsic(dtype, f"llvm.aarch64.neon.{name}", *args)


def shuffled(vectors: Sequence[tirx.PrimExpr], lanes: Sequence[int]) -> tirx.PrimExpr:
    """The lanes of some vectors of one type, numbered one vector behind the other."""
    return tirx.Shuffle(list(vectors), [i32(lane) for lane in lanes])


def joined(low: tirx.PrimExpr, high: tirx.PrimExpr, lanes: int) -> tirx.PrimExpr:
    """Two vectors of `lanes` lanes as one."""
    return shuffled([low, high], range(2 * lanes))


def low(vector: tirx.PrimExpr, lanes: int) -> tirx.PrimExpr:
    """The first `lanes` lanes."""
    return shuffled([vector], range(lanes))


def high(vector: tirx.PrimExpr, lanes: int) -> tirx.PrimExpr:
    """The last `lanes` of twice as many."""
    return shuffled([vector], range(lanes, 2 * lanes))


def quad(words: tirx.PrimExpr, lane: int) -> tirx.PrimExpr:
    """Four bytes of an int32 vector four times over, int8x16: the operand "by element" of SDOT."""
    return tirx.reinterpret("int8x16", shuffled([words], [lane] * 4))


def sdot(acc: tirx.PrimExpr, a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """acc plus, by lane, the products of four bytes of a with four of b; int32x4."""
    return _call("int32x4", "sdot.v4i32.v16i8", acc, a, b)


def smmla(acc: tirx.PrimExpr, a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """acc plus the 2 x 2 products of two rows of eight bytes of a with two of b; int32x4."""
    return _call("int32x4", "smmla.v4i32.v16i8", acc, a, b)


def smull(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """int16x8 products of int8x8."""
    return _call("int16x8", "smull", a, b)


def smull_halves(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """int32x4 products of int16x4."""
    return _call("int32x4", "smull", a, b)


def saddlp(halves: tirx.PrimExpr) -> tirx.PrimExpr:
    """int32x4 sums of neighbours of int16x8."""
    return _call("int32x4", "saddlp", halves)


def addp(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """int32x4 sums of neighbours: those of a, then those of b."""
    return _call("int32x4", "addp", a, b)


def sqrdmulh(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """(2 * a * b + 2**31) >> 32 by lane, saturating."""
    return _call("int32x4", "sqrdmulh", a, b)


def sqdmulh(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """(2 * a * b) >> 32 by lane, saturating."""
    return _call("int32x4", "sqdmulh", a, b)


def srshl(a: tirx.PrimExpr, shift: tirx.PrimExpr) -> tirx.PrimExpr:
    """a << shift by lane; to the right, halves up, where shift is negative."""
    return _call("int32x4", "srshl", a, shift)


def sqshl(a: tirx.PrimExpr, shift: tirx.PrimExpr) -> tirx.PrimExpr:
    """a << shift by lane, saturating."""
    return _call("int32x4", "sqshl", a, shift)


def sqadd_halves(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """int16x8 sums, saturating."""
    return _call("int16x8", "sqadd", a, b)


def halves(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """Two int32x4 as int16x8, saturated (SQXTN, SQXTN2)."""
    return joined(_call("int16x4", "sqxtn", a), _call("int16x4", "sqxtn", b), 4)


def lower_halves(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """Two int32x4 that fit 16 bits as int16x8 (UZP1)."""
    return shuffled([tirx.reinterpret("int16x8", a), tirx.reinterpret("int16x8", b)], range(0, 16, 2))


def narrow(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """int16x8 as int8x8, saturated."""
    return _call("int8x8", "sqxtn", value)


def narrow_unsigned(value: tirx.PrimExpr) -> tirx.PrimExpr:
    """int16x8 as bytes from 0 to 255, saturated; int8x8 by their bits."""
    return _call("int8x8", "sqxtun", value)


def splat_bytes(value: int, lanes: int) -> tirx.PrimExpr:
    """A constant in 8-bit lanes."""
    return tirx.Broadcast(tirx.const(value, "int8"), lanes)


def ssubl(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """int16x8 differences of int8x8."""
    return a.astype("int16x8") - b.astype("int16x8")


def zipped(a: tirx.PrimExpr, b: tirx.PrimExpr, part: int, lanes: int) -> tirx.PrimExpr:
    """The lanes of two vectors in turn: those of the lower halves (ZIP1) or of the upper ones (ZIP2)."""
    first = part * lanes // 2
    return shuffled([a, b], [lane + side * lanes for lane in range(first, first + lanes // 2) for side in range(2)])


def woven(rows: Sequence[tirx.PrimExpr]) -> list[tirx.PrimExpr]:
    """Four int8x16 with the bytes of four rows in turn: what SDOT multiplies of four neighbours of each row."""
    twos = [tirx.reinterpret("int16x8", zipped(rows[i], rows[i + 1], side, 16)) for side in range(2) for i in (0, 2)]
    pairs = [(twos[2 * side], twos[2 * side + 1], part) for side in range(2) for part in range(2)]
    return [tirx.reinterpret("int8x16", zipped(one, other, part, 8)) for one, other, part in pairs]


def tbl(table: Sequence[tirx.PrimExpr], index: tirx.PrimExpr) -> tirx.PrimExpr:
    """int8x16: the bytes of four int8x16 at the places in `index`; 0 at those beyond 63."""
    return _call("int8x16", "tbl4", *table, index)


def tbx(other: tirx.PrimExpr, table: Sequence[tirx.PrimExpr], index: tirx.PrimExpr) -> tirx.PrimExpr:
    """The same, but `other` at places beyond 63."""
    return _call("int8x16", "tbx4", other, *table, index)


def tbl3(table: Sequence[tirx.PrimExpr], index: Sequence[int]) -> tirx.PrimExpr:
    """int8x16: the bytes of three int8x16 at constant places; 0 at those beyond 47."""
    words = [int.from_bytes(bytes(index[i : i + 4]), "little") for i in range(0, 16, 4)]
    lanes = tirx.Shuffle([i32(word) for word in words], [i32(i) for i in range(4)])
    return _call("int8x16", "tbl3", *table, tirx.reinterpret("int8x16", lanes))
