"""Normalization over rows that lie in one piece (layer and root mean square normalization), exactly as `qnormalize` has it.

Of each row of K bytes the sum and the sum of squares, one reciprocal root by scalar arithmetic, and then, by vectors of four,

    y = (d * root + half) >> bits,  d = K * x - sum

Where `bits` is at most 31 for whatever a row holds, that is SQRDMULH of d * 2**(31 - bits) and root; otherwise it takes
products of 64 bits. Factors, offsets, epsilon and the requantization are parameters, so that equal layers share their code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ....passes.integer.fixed_point import ROOT_A, ROOT_B, ROOT_STEPS
from ....passes.integer.normalize import fraction_bits
from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, i32, intrinsic, load_words, vector_start
from .epilogue import Epilogue
from .neon import high, joined, low, saddlp, sdot, smull, splat_bytes, sqrdmulh

# mypy: ignore-errors

LONGEST = 1 << 14
"""Elements of a row: its sum of squares, a multiple of the elements and what follows fit their words."""


@dataclass(frozen=True)
class NormalizationKernel:
    """Normalization of rows.

    Attributes:
        rows: How many.
        length: Elements of a row, at least 16 and at most `LONGEST`.
        centred: Whether the mean is subtracted; otherwise the zero point of the input is.
        narrow: Whether products of 32 bits do for all rows.
        dot: Whether the core has SDOT.
        epilogue: How results become outputs.
    """

    rows: int
    length: int
    centred: bool
    narrow: bool
    dot: bool
    epilogue: Epilogue

    @staticmethod
    def is_narrow(length: int, epsilon: int, zero_point: int, centred: bool) -> bool:
        """Whether `bits` is at most 31 for every row."""
        reach = 255 if centred else max(127 - zero_point, 128 + zero_point)
        # K * sum(x^2) - sum(x)^2 is greatest where half of the row is at one end, and half at the other.
        largest = length * length * reach * reach // (4 if centred else 1) + epsilon
        exponent = 30 + (max(largest, 1).bit_length() - 1) // 2
        return exponent - fraction_bits(length) <= 31

    def parameters(
        self, factor: np.ndarray, offset: np.ndarray, zero_point: int, epsilon: int, multiplier: int, shift: int
    ) -> np.ndarray:
        """The factors and offsets of a row, the words of the epilogue, its tail, the input's zero point, and epsilon: int32."""
        words = self.epilogue.parameters(np.array([multiplier]), np.array([shift])).ravel()
        parts = [factor, offset, words, self.epilogue.tail, [0 if self.centred else zero_point]]
        # Its lower word first.
        return np.concatenate([*(np.asarray(part, np.int32) for part in parts), np.array([epsilon], "<i8").view("<i4")])


def reduced(vector: tirx.PrimExpr) -> tirx.PrimExpr:
    """The sum of four words."""
    return intrinsic("int32", "llvm.vector.reduce.add.v4i32", vector)


def wide_product(d: tirx.PrimExpr, root: tirx.PrimExpr, back: tirx.PrimExpr) -> tirx.PrimExpr:
    """int32x4: products with a word, of 64 bits, shifted right by `-back` with halves up."""
    parts = []
    for half in (low, high):
        product = intrinsic("int64x2", "llvm.aarch64.neon.smull.v2i64", half(d, 2), tirx.Broadcast(root, 2))
        parts.append(intrinsic("int64x2", "llvm.aarch64.neon.srshl.v2i64", product, tirx.Broadcast(back, 2)))
    return joined(*(part.astype("int32x2") for part in parts), 2)


def normalization(k: NormalizationKernel) -> tirx.PrimFunc:
    """The function of (input, parameters, output), all flat."""
    N, K, ep = k.rows, k.length, k.epilogue
    WHOLE, REST, F = K // VECTOR, K % VECTOR, fraction_bits(K)
    ZERO = 2 * K + ep.words + len(ep.tail)
    PARAMETERS = ZERO + 3

    def add_up(x, q, at, acc):
        """Sums and sums of squares of a row, in vectors, less the zero point where the mean is not subtracted."""
        value = x.vload([at], "int8x16")
        if k.dot and k.centred:
            T.buffer_store(acc, sdot(acc[0], value, splat_bytes(1, VECTOR)), [0])
            T.buffer_store(acc, sdot(acc[1], value, value), [1])
            return
        if k.centred:
            parts = [low(value, 8), high(value, 8)]
            T.buffer_store(acc, acc[0] + saddlp(parts[0].astype("int16x8") + parts[1].astype("int16x8")), [0])
            for part in parts:
                T.buffer_store(acc, acc[1] + saddlp(smull(part, part)), [1])
            return
        for j in range(4):
            word = x.vload([at + 4 * j], "int8x4").astype("int32x4") - tirx.Broadcast(q[ZERO], 4)
            T.buffer_store(acc, acc[1] + word * word, [1])

    def prepare(x, q, row, acc, wide, word):
        """Of a row the factor of x, what is added to it, the root, and the shift back of wide products, in `word`."""
        for i in range(2):
            T.buffer_store(acc, tirx.Broadcast(i32(0), 4), [i])
        if WHOLE:
            with T.serial(WHOLE) as i:
                add_up(x, q, row * K + i * VECTOR, acc)
        T.buffer_store(word, reduced(acc[0]), [0])
        T.buffer_store(word, reduced(acc[1]), [1])
        if REST:
            with T.serial(REST) as i:
                value = x[row * K + (WHOLE * VECTOR + i)].astype("int32") - q[ZERO]
                T.buffer_store(word, word[0] + value, [0])
                T.buffer_store(word, word[1] + value * value, [1])
        upper = tirx.shift_left(q[ZERO + 2].astype("int64"), tirx.const(32, "int64"))
        epsilon = upper + (q[ZERO + 1].astype("int64") & tirx.const(0xFFFFFFFF, "int64"))
        variance = word[1].astype("int64") * tirx.const(K, "int64") + epsilon
        if k.centred:
            variance = variance - word[0].astype("int64") * word[0].astype("int64")
        T.buffer_store(wide, tirx.max(variance, tirx.const(1, "int64")), [0])
        # Half the zeros in front, of 62 bits.
        T.buffer_store(word, tirx.shift_right(tirx.clz(wide[0]).astype("int32") - 2, i32(1)), [1])
        left = word[1].astype("int64") * tirx.const(2, "int64")
        T.buffer_store(wide, tirx.shift_right(tirx.shift_left(wide[0], left), tirx.const(32, "int64")), [0])

        def product(a, b, bits):
            return tirx.shift_right(a * b, tirx.const(bits, "int64"))

        T.buffer_store(wide, tirx.const(ROOT_A, "int64") - product(wide[0], tirx.const(ROOT_B, "int64"), 30), [1])
        for _ in range(ROOT_STEPS):
            T.buffer_store(wide, product(wide[1], wide[1], 29), [2])
            T.buffer_store(wide, tirx.const(3 << 29, "int64") - product(wide[0], wide[2], 30), [2])
            T.buffer_store(wide, product(wide[1], wide[2], 30), [1])
        T.buffer_store(word, wide[1].astype("int32"), [2])
        # bits = 60 - left - F; the products of words are shifted by what is missing to 31.
        T.buffer_store(word, word[1] + i32(F - 60), [3])
        T.buffer_store(word, word[1] + i32(F - 29) if k.narrow else i32(0), [4])
        total = word[0] if k.centred else q[ZERO] * K
        T.buffer_store(word, tirx.shift_left(0 - total, word[4]), [1])
        T.buffer_store(word, tirx.shift_left(i32(K), word[4]), [0])

    def outputs(x, q, word, row, at):
        """Sixteen outputs of a row."""
        value = x.vload([row * K + at], "int8x16")
        factors = [tirx.Broadcast(q[2 * K + i], 4) for i in range(ep.words)]
        values = []
        for half in (low, high):
            halves = half(value, 8).astype("int16x8")
            for quarter in (low, high):
                place = at + 4 * len(values)
                d = quarter(halves, 4).astype("int32x4") * tirx.Broadcast(word[0], 4) + tirx.Broadcast(word[1], 4)
                if k.narrow:
                    y = sqrdmulh(d, tirx.Broadcast(word[2], 4))
                else:
                    y = wide_product(d, word[2], word[3].astype("int64"))
                total = y * load_words(q, place) + load_words(q, K + place)
                values.append(ep.scaled(total, factors))
        return ep.bytes(values, ep.zero(q, 2 * K + ep.words))

    @T.prim_func(s_tir=True)
    def normalize(
        x: T.Buffer((N * K,), "int8"),
        q: T.Buffer((PARAMETERS,), "int32"),
        out: T.Buffer((N * K,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        acc = T.alloc_buffer((2,), "int32x4", scope="local")
        wide = T.alloc_buffer((3,), "int64", scope="local")
        word = T.alloc_buffer((5,), "int32", scope="local")
        for row in parallel(N):
            prepare(x, q, row, acc, wide, word)
            for i in range(-(-K // VECTOR)):
                out[T.ramp(row * K + vector_start(i, K), 1, VECTOR)] = outputs(x, q, word, row, vector_start(i, K))

    normalize = normalize.with_attr("tvmcompress.workspaces", {"": 0})
    # The last vector reads again what may have been overwritten.
    return normalize if REST else normalize.with_attr("tvmcompress.inplace", 0)
