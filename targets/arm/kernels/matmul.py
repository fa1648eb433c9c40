"""Product of two tensors: a layer over tokens whose weights are packed while it runs.

    sum((a - za) * (b - zb))  =  sum(a * b) - za * sum(b) - zb * sum(a) + K * za * zb

so the sums of b's columns go into the biases, and those of a's rows are added to all channels of a row. Zero points and factors
are parameters: products of equal shapes share their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, i32, load_words
from .neon import sdot, splat_bytes, woven
from .plan import ConvolutionKernel
from .tiles import Tiles, edge

# mypy: ignore-errors


@dataclass(frozen=True)
class MatmulKernel:
    """A product of (M, K) and (K, N), `count` times over.

    Attributes:
        kernel: The layer of N channels over M tokens of K bytes.
        count: How many products.
        zero_points: Of the operands.
    """

    kernel: ConvolutionKernel
    count: int
    zero_points: tuple[int, int]

    @cached_property
    def head(self) -> int:
        """Words before the tail of the epilogue: its words, and the zero points."""
        return self.kernel.epilogue.words + 2

    def parameters(self, multiplier: int, shift: int) -> np.ndarray:
        """Flat int32."""
        words = self.kernel.epilogue.parameters(np.array([multiplier]), np.array([shift])).ravel()
        return np.concatenate([words, self.zero_points, self.kernel.epilogue.tail]).astype(np.int32)

    @cached_property
    def by_vectors(self) -> bool:
        """Whether b is packed by vectors of sixteen columns, for SDOT."""
        k = self.kernel
        return k.products.granule == 4 and k.plan.vectors == 4 and k.shape.out_channels >= VECTOR

    @cached_property
    def steps(self) -> list[tuple[int, int]]:
        """First byte and size of all steps of a row."""
        phases = [(phase, i * phase.stride) for phase in self.kernel.phases for i in range(phase.rounds)]
        return [(start + at, size) for phase, start in phases for at, size in phase.steps]


def matmul(m: MatmulKernel) -> tirx.PrimFunc:
    """The function of (a, b, parameters, output), all flat."""
    k = m.kernel
    s, ep = k.shape, k.epilogue
    M, K, N, G = s.out_width, s.channels, s.out_channels, m.count
    COLUMNS = k.plan.source == "columns"
    NB, WIDTH, NV, BYTES, WORDS = len(k.starts), 4 * k.plan.vectors, k.plan.vectors, k.block_bytes, k.block_words
    TOTAL, HEAD = NB * WORDS + len(ep.tail), m.head + len(ep.tail)
    A, B, OUT = G * M * K, G * K * N, G * M * N

    def pack_vectors(b, packed, q, sums, at, n):
        """Packs a block by vectors; leaves the sums of its columns in `sums`."""
        column = edge(n, WIDTH, N) if N > WIDTH else 0
        for v in range(4):
            T.buffer_store(sums, tirx.Broadcast(i32(0), 4), [v])

        def group(place, rows):
            values = woven([b.vload([row], "int8x16") if row is not None else splat_bytes(0, VECTOR) for row in rows])
            for v in range(4):
                T.buffer_store(packed, values[v], [tirx.Ramp(n * BYTES + place * 64 + v * VECTOR, i32(1), VECTOR)])
                T.buffer_store(sums, sdot(sums[v], values[v], splat_bytes(1, VECTOR)), [v])

        with T.serial(K // 4) as k4:
            group(k4, [at + (k4 * 4 + r) * N + column for r in range(4)])
        if K % 4:
            group(K // 4, [at + (K // 4 * 4 + r) * N + column if K // 4 * 4 + r < K else None for r in range(4)])
        for v in range(4):
            store_bias(q, n * WORDS + v * 4, sums[v])

    def store_bias(q, place, total):
        T.buffer_store(q, total, [tirx.Ramp(place, i32(1), 4)])

    def pack_bytes(b, packed, q, at, n):
        """Packs a block byte by byte, in the order of `Products.pack`."""
        column = edge(n, WIDTH, N) if N > WIDTH else 0
        done = 0
        for first, size in m.steps:
            with T.serial(WIDTH) as j, T.serial(size) as i:
                inside = T.And(first + i < K, column + j < N)
                value = T.if_then_else(inside, b[at + (first + i) * N + column + j], tirx.const(0, "int8"))
                if k.products.granule == 4:
                    place = i // 4 * (WIDTH * 4) + j * 4 + i % 4
                else:
                    place = j * size + i
                T.buffer_store(packed, value, [n * BYTES + done + place])
            done += size * WIDTH
        with T.serial(WIDTH) as j:
            T.buffer_store(q, i32(0), [n * WORDS + j])
            with T.serial(K) as i, T.If(column + j < N), T.Then():
                total = q[n * WORDS + j] + b[at + i * N + column + j].astype("int32")
                T.buffer_store(q, total, [n * WORDS + j])

    def finish_bias(q, n, zero1, zero2):
        """From the sums of columns to biases."""
        for v in range(NV):
            total = load_words(q, n * WORDS + v * 4)
            bias = tirx.Broadcast(zero1, 4) * (tirx.Broadcast(K * zero2, 4) - total)
            T.buffer_store(q, bias, [tirx.Ramp(n * WORDS + v * 4, i32(1), 4)])

    def fill_factors(q, words):
        for i in range(ep.words):
            with T.serial(NB) as n, T.serial(NV) as v:
                at = n * WORDS + (1 + i) * WIDTH + v * 4
                T.buffer_store(q, tirx.Broadcast(words[i], 4), [tirx.Ramp(at, i32(1), 4)])
        for i in range(len(ep.tail)):
            T.buffer_store(q, words[m.head + i], [NB * WORDS + i])

    def row_terms(a, terms, at, zero2):
        """-zb times the sum of each row of a."""
        with T.serial(M) as row:
            T.buffer_store(terms, i32(0), [row])
            with T.serial(K) as i:
                T.buffer_store(terms, terms[row] + a[at + row * K + i].astype("int32"), [row])
            T.buffer_store(terms, terms[row] * (0 - zero2), [row])

    def copy_rows(a, panel, at):
        """Copies the rows of a to where whole steps may be read."""
        with T.serial(M) as row, T.serial(K) as i:
            T.buffer_store(panel, a[at + row * K + i], [row * k.field + i])

    def pack(b, packed, q, sums, at, n):
        if m.by_vectors:
            pack_vectors(b, packed, q, sums, at, n)
        else:
            pack_bytes(b, packed, q, at, n)

    def multiply(source, packed, q, out, acc, result, terms, read, written):
        Tiles(k, source, packed, q, out, acc, result, lambda row: terms[row]).walk(0, read, written, divided=G == 1)

    @T.prim_func(s_tir=True)
    def product(
        a: T.Buffer((A,), "int8"),
        b: T.Buffer((B,), "int8"),
        words: T.Buffer((HEAD,), "int32"),
        out: T.Buffer((OUT,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        packed = T.alloc_buffer((NB * BYTES,), "int8")
        q = T.alloc_buffer((TOTAL,), "int32")
        terms = T.alloc_buffer((M,), "int32")
        panel = T.alloc_buffer((k.columns_bytes if COLUMNS else VECTOR,), "int8")
        sums = T.alloc_buffer((4,), "int32x4", scope="local")
        acc = T.alloc_buffer((k.sums,), "int32x4", scope="local")
        result = T.alloc_buffer((len(k.pixel_offsets) * NV,), "int32x4", scope="local")
        fill_factors(q, words)
        for g in parallel(G) if G > 1 else T.serial(G):
            for n in range(NB):
                pack(b, packed, q, sums, g * (K * N), n)
                finish_bias(q, n, words[ep.words], words[ep.words + 1])
            row_terms(a, terms, g * (M * K), words[ep.words + 1])
            if COLUMNS:
                copy_rows(a, panel, g * (M * K))
            multiply(panel if COLUMNS else a, packed, q, out, acc, result, terms, 0 if COLUMNS else g * (M * K), g * (M * N))

    workspaces = {"packed": NB * BYTES, "q": 4 * TOTAL, "terms": 4 * M}
    if COLUMNS:
        workspaces["panel"] = k.columns_bytes
    return product.with_attr("tvmcompress.workspaces", workspaces)
