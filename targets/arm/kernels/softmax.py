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
    """

    rows: int
    length: int


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
    """The function of (input, table of exponentials, output), all flat."""
    N, K = k.rows, k.length
    BITS, QUARTERS = sum_bits(K), -(-K // 4)

    def first(i, step):
        """The first of `step` elements; the last ones overlap those before."""
        return i * step if K % step == 0 else T.min(i * step, K - step)

    def greatest(x, row, most, word):
        T.buffer_store(most, x.vload([row * K], "int8x16"), [0])
        if K > VECTOR:
            with T.serial(-(-K // VECTOR) - 1) as i:
                T.buffer_store(most, tirx.max(most[0], x.vload([row * K + first(i + 1, VECTOR)], "int8x16")), [0])
        T.buffer_store(word, intrinsic("int8", "llvm.vector.reduce.smax.v16i8", most[0]).astype("int32"), [0])

    def exponentials(x, table, row, exps, sums, word):
        """The exponentials of a row, and in `word[1]` their sum."""
        with T.serial(K // 4) as i:
            values = [table[word[0] - x[row * K + i * 4 + j].astype("int32")] for j in range(4)]
            T.buffer_store(exps, tirx.Shuffle(values, [i32(j) for j in range(4)]), [T.ramp(i * 4, 1, 4)])
        T.buffer_store(sums, splat(0), [0])
        with T.serial(K // 4) as i:
            T.buffer_store(sums, sums[0] + srshl(load_words(exps, i * 4), splat(-BITS)), [0])
        T.buffer_store(word, reduced(sums[0]), [1])
        for j in range(K // 4 * 4, K):
            T.buffer_store(exps, table[word[0] - x[row * K + j].astype("int32")], [j])
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

    @T.prim_func(s_tir=True)
    def rows(
        x: T.Buffer((N * K,), "int8"),
        table: T.Buffer((256,), "int32"),
        out: T.Buffer((N * K,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        exps = T.alloc_buffer((4 * QUARTERS,), "int32")
        most = T.alloc_buffer((1,), "int8x16", scope="local")
        sums = T.alloc_buffer((1,), "int32x4", scope="local")
        wide = T.alloc_buffer((3,), "int64", scope="local")
        word = T.alloc_buffer((3,), "int32", scope="local")
        for row in parallel(N):
            greatest(x, row, most, word)
            exponentials(x, table, row, exps, sums, word)
            reciprocal(wide, word)
            for i in range(-(-K // VECTOR)):
                out[T.ramp(row * K + first(i, VECTOR), 1, VECTOR)] = outputs(exps, word, first(i, VECTOR))

    rows = rows.with_attr("tvmcompress.workspaces", {"exps": 16 * QUARTERS})
    # A row is read before it is written.
    return rows.with_attr("tvmcompress.inplace", 0)
