"""Softmax over rows, exactly as `qsoftmax` has it.

Of each row the greatest byte; of each byte the exponential of its distance to it, from a table of 256 words, which is kept in a
workspace; their sum, and its reciprocal by scalar arithmetic; and then, by vectors of four, the product with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script import tirx as T

from ....passes.integer.fixed_point import RECIPROCAL_A, RECIPROCAL_B
from ....passes.integer.requantize import INT32_MAX, INT32_MIN
from ....passes.integer.softmax import sum_bits
from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, i32, intrinsic, load_words, splat
from .neon import joined, lower_halves, narrow_unsigned, splat_bytes, sqrdmulh, srshl
from .normalization import reduced

# mypy: ignore-errors

_NEWTON_STEPS = 3


@dataclass(frozen=True)
class SoftmaxKernel:
    """Softmax of rows.

    Attributes:
        rows: How many.
        length: Elements of a row, at least 16.
        masks: How many rows have a mask of their own, those behind them the same again; 0 where all elements count.
    """

    rows: int
    length: int
    masks: int = 0


def _i64(value: int) -> tirx.PrimExpr:
    return tirx.const(value, "int64")


def _high_product(a: tirx.PrimExpr, b: tirx.PrimExpr) -> tirx.PrimExpr:
    """`fixed_point.high_product` of int64 values in the range of int32."""
    return tirx.min(tirx.shift_right(a * b + _i64(1 << 30), _i64(31)), _i64(INT32_MAX))


def _saturating_left(x: tirx.PrimExpr, bits: int) -> tirx.PrimExpr:
    return tirx.max(tirx.min(tirx.shift_left(x, _i64(bits)), _i64(INT32_MAX)), _i64(INT32_MIN))


def reciprocal_of_one_plus(a: tirx.PrimExpr, wide: tirx.Buffer) -> None:
    """Statements that leave `fixed_point.reciprocal_of_one_plus` of an int64 in `wide[0]`; `wide` has three int64."""
    T.buffer_store(wide, tirx.shift_right(a + _i64(INT32_MAX + 1), _i64(1)), [1])
    T.buffer_store(wide, _i64(RECIPROCAL_A) + _high_product(wide[1], _i64(RECIPROCAL_B)), [0])
    for _ in range(_NEWTON_STEPS):
        T.buffer_store(wide, _i64(1 << 29) - _high_product(wide[1], wide[0]), [2])
        T.buffer_store(wide, wide[0] + _saturating_left(_high_product(wide[0], wide[2]), 2), [0])
    T.buffer_store(wide, _saturating_left(wide[0], 1), [0])


def softmax(k: SoftmaxKernel) -> tirx.PrimFunc:
    """The function of (input, table of exponentials, output), all flat, or of (input, masks, table, output).

    Masks have -1 where an element counts and 0 where it does not. To the greatest byte the latter are the least one; their
    exponentials are 0, which becomes the byte of 0.
    """
    N, K, MASKS = k.rows, k.length, max(k.masks, 1)
    BITS, QUARTERS = sum_bits(K), -(-K // 4)

    def first(i, step):
        """The first of `step` elements; the last ones overlap those before."""
        return i * step if K % step == 0 else T.min(i * step, K - step)

    def mask_at(row, at):
        return (row if k.masks == N else tirx.floormod(row, i32(MASKS))) * K + at

    def greatest(x, masks, row, most, word):
        def counted(at):
            value = x.vload([row * K + at], "int8x16")
            if not k.masks:
                return value
            mask = masks.vload([mask_at(row, at)], "int8x16")
            return (value & mask) | (splat_bytes(-128, VECTOR) & (mask ^ splat_bytes(-1, VECTOR)))

        T.buffer_store(most, counted(0), [0])
        if K > VECTOR:
            with T.serial(-(-K // VECTOR) - 1) as i:
                T.buffer_store(most, tirx.max(most[0], counted(first(i + 1, VECTOR))), [0])
        T.buffer_store(word, intrinsic("int8", "llvm.vector.reduce.smax.v16i8", most[0]).astype("int32"), [0])

    def distance(x, row, at, word):
        """Of an element from the greatest one, as a place of the table; what does not count may be greater still."""
        value = word[0] - x[row * K + at].astype("int32")
        return tirx.max(value, i32(0)) if k.masks else value

    def exponentials(x, masks, table, row, exps, sums, word):
        """The exponentials of a row, and in `word[1]` their sum."""
        with T.serial(K // 4) as i:
            values = [table[distance(x, row, i * 4 + j, word)] for j in range(4)]
            four = tirx.Shuffle(values, [i32(j) for j in range(4)])
            if k.masks:
                four = four & masks.vload([mask_at(row, i * 4)], "int8x4").astype("int32x4")
            T.buffer_store(exps, four, [T.ramp(i * 4, 1, 4)])
        T.buffer_store(sums, splat(0), [0])
        with T.serial(K // 4) as i:
            T.buffer_store(sums, sums[0] + srshl(load_words(exps, i * 4), splat(-BITS)), [0])
        T.buffer_store(word, reduced(sums[0]), [1])
        for j in range(K // 4 * 4, K):
            value = table[distance(x, row, j, word)]
            T.buffer_store(exps, value & masks[mask_at(row, j)].astype("int32") if k.masks else value, [j])
            # Its half is added behind the shift: the exponential may be the largest word.
            half = tirx.bitwise_and(tirx.shift_right(exps[j], i32(BITS - 1)), i32(1))
            T.buffer_store(word, word[1] + tirx.shift_right(exps[j], i32(BITS)) + half, [1])

    def reciprocal(wide, word):
        """In `word[0]` the reciprocal of the sum, and in `word[1]` the shift to the right, negative."""
        T.buffer_store(word, tirx.max(word[1], i32(1)), [1])
        T.buffer_store(word, tirx.clz(word[1]).astype("int32"), [2])
        leading = word[2].astype("int64")
        reciprocal_of_one_plus(tirx.shift_left(word[1].astype("int64"), leading) - _i64(1 << 31), wide)
        T.buffer_store(word, wide[0].astype("int32"), [0])
        T.buffer_store(word, word[2] - i32(BITS + 23), [1])

    def outputs(exps, word, at):
        values = []
        for j in range(4):
            product = sqrdmulh(load_words(exps, at + 4 * j), tirx.Broadcast(word[0], 4))
            values.append(srshl(product, tirx.Broadcast(word[1], 4)))
        parts = [narrow_unsigned(lower_halves(*values[i : i + 2])) for i in (0, 2)]
        return joined(*parts, 8) ^ splat_bytes(-128, VECTOR)

    def compute(x, masks, table, out, exps):
        most = T.alloc_buffer((1,), "int8x16", scope="local")
        sums = T.alloc_buffer((1,), "int32x4", scope="local")
        wide = T.alloc_buffer((3,), "int64", scope="local")
        word = T.alloc_buffer((3,), "int32", scope="local")
        with parallel(N) as row:
            greatest(x, masks, row, most, word)
            exponentials(x, masks, table, row, exps, sums, word)
            reciprocal(wide, word)
            with T.serial(-(-K // VECTOR)) as i:
                at = first(i, VECTOR)
                T.buffer_store(out, outputs(exps, word, at), [T.ramp(row * K + at, 1, VECTOR)])

    if k.masks:

        @T.prim_func(s_tir=True)
        def rows(
            x: T.Buffer((N * K,), "int8"),
            masks: T.Buffer((MASKS * K,), "int8"),
            table: T.Buffer((256,), "int32"),
            out: T.Buffer((N * K,), "int8"),
        ):
            T.func_attr({"tirx.noalias": True})
            exps = T.alloc_buffer((4 * QUARTERS,), "int32")
            compute(x, masks, table, out, exps)

    else:

        @T.prim_func(s_tir=True)
        def rows(
            x: T.Buffer((N * K,), "int8"),
            table: T.Buffer((256,), "int32"),
            out: T.Buffer((N * K,), "int8"),
        ):
            T.func_attr({"tirx.noalias": True})
            exps = T.alloc_buffer((4 * QUARTERS,), "int32")
            compute(x, table, table, out, exps)

    made = rows.with_attr("tvmcompress.workspaces", {"exps": 16 * QUARTERS})
    # A row is read before it is written.
    return made.with_attr("tvmcompress.inplace", 0)
