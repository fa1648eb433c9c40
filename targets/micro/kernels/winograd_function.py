"""The function of a convolution by minimal filtering."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.vectors import i32
from .routines import products_routine
from .words import even_bytes, load_word, multiply_high_rounded, odd_bytes, qadd, qsub, sadd16, smlad, ssub16

if TYPE_CHECKING:
    from .winograd import WinogradConvolution

# mypy: ignore-errors

HEAD_WORDS = 6
_KEPT = 20
"""Words kept while inputs or weights are transformed."""
LEAD_WORDS = 2
"""Words that nothing is in before the transformed values. With an offset in every address none takes the form of two
registers, which would keep its load from being paired."""


def _twice(value: tirx.PrimExpr) -> tirx.PrimExpr:
    return sadd16(value, value)


def _store(buffer: tirx.Buffer, place: Callable[[int], tirx.PrimExpr], values: list[list[tirx.PrimExpr]]) -> None:
    """Statements that store, for each product, the words of both halves."""
    for m, halves in enumerate(zip(*values)):
        for half, value in enumerate(halves):
            T.buffer_store(buffer, value, [place(m) + half])


class _Two:
    """F(2, 3), of halfwords."""

    @staticmethod
    def inputs(d, keep):
        return [ssub16(d[0], d[2]), sadd16(d[1], d[2]), ssub16(d[2], d[1]), ssub16(d[3], d[1])]

    @staticmethod
    def weights(g, keep):
        ends = sadd16(g[0], g[2])
        return [_twice(g[0]), sadd16(ends, g[1]), ssub16(ends, g[1]), _twice(g[2])]

    @staticmethod
    def first(m, start):
        return m[1] + start

    @staticmethod
    def outputs(m, first):
        return [m[0] + first + m[2], first - m[2] + m[3]]


class _Four:
    """F(4, 3), of halfwords; what is used twice is kept, since LLVM would compute it twice."""

    @staticmethod
    def inputs(d, keep):
        def four(value):
            return _twice(keep(_twice(value)))

        even, odd = keep(ssub16(d[4], d[2])), keep(ssub16(d[3], d[1]))
        far, near = keep(ssub16(d[4], four(d[2]))), keep(ssub16(d[3], four(d[1])))
        odd_twice = keep(_twice(odd))
        return [
            sadd16(four(keep(ssub16(d[0], d[2]))), even),
            sadd16(far, near),
            ssub16(far, near),
            sadd16(even, odd_twice),
            ssub16(even, odd_twice),
            ssub16(ssub16(d[5], d[3]), _twice(odd_twice)),
        ]

    @staticmethod
    def weights(g, keep):
        ends = keep(sadd16(g[0], g[2]))
        last, twice = keep(_twice(g[2])), keep(_twice(g[1]))
        wide = keep(sadd16(g[0], _twice(last)))
        return [
            sadd16(_twice(g[0]), g[0]),
            sadd16(ends, g[1]),
            ssub16(ends, g[1]),
            sadd16(wide, twice),
            ssub16(wide, twice),
            sadd16(last, g[2]),
        ]

    @staticmethod
    def first(m, start):
        return start

    @staticmethod
    def outputs(m, first):
        one = i32(1)
        s, d, t, e = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
        # Saturating where nothing can: TVM would take other sums apart when it widens them.
        sixth = [
            qadd((m[0] << one) - (s << i32(2)), t) >> i32(2),
            qsub(e, d << one) >> one,
            qsub(t, s),
            qsub((e + m[5]) << one, d),
        ]
        # A third, exactly: the product's upper word, rounded.
        return [qadd(multiply_high_rounded(value, i32(0x55555556)), first) for value in sixth]


_FILTERING = {2: _Two, 4: _Four}


def winograd_function(k: WinogradConvolution) -> tirx.PrimFunc:
    c, plan, ep = k.conv, k.plan, k.conv.epilogue
    H, W, C, OH, OW, CO = c.height, c.width, c.channels, c.out_height, c.out_width, c.out_channels
    C4, K4, UK = C // 4, k.words, plan.unroll
    BLOCK, ROWS, STRIPS, WHOLE = plan.block // 2, plan.rows, k.strips, plan.whole
    VR = ROWS + 2
    ROUTINE, ROUNDS = plan.routine, k.rounds
    HEAD, LEAD = HEAD_WORDS + (3 if ROUTINE else 0), LEAD_WORDS
    QW = 2 + 2 * ep.words
    ADD = k.residual is not None
    RN = OH * OW * CO if ADD else H * W * C
    TN = k.residual.words if ADD else HEAD + CO // 2 * QW
    HALVE = ep.gain == 1
    TILE, PRODUCTS = plan.tile, k.products
    APART = TILE == 4 or ROUTINE
    COLUMNS, BOTH = 2 * TILE + 2, 2 * TILE
    filtering = _FILTERING[TILE]
    ZERO = i32((c.input_zero_point & 0xFF) * 0x01010101)

    def word(x, q, row, strip, j, cw):
        """Four channels of a column of a strip; the zero point outside the input."""
        column = strip * BOTH + j - c.left
        # The padding from memory keeps constant offsets positive: negative ones do not fit an instruction.
        load = load_word(x, ((row - q[4]) * W + strip * BOTH + j - q[5]) * C + cw * 4)
        # Where a condition holds for every strip, the simplifier drops it.
        return T.if_then_else(T.And(column >= 0, column < W), load, ZERO)

    def field(strip, row, k, tile, m):
        """Where the two words of a transformed input stand, apart from others that are read with them: so they are paired."""
        if APART:
            return LEAD + (((((strip if WHOLE else 0) * PRODUCTS + m) * VR + row) * C4 + k) * 2 + tile) * 2
        place = (((strip if WHOLE else 0) * VR + row) * C4 + k) * 2 + tile
        return LEAD + place * (2 * PRODUCTS) + m * 2

    def tap(n, k, which, m):
        """Where the two words of a transformed weight stand."""
        if APART:
            return LEAD + (((n * PRODUCTS + m) * K4 + k) * 2 + which) * 2
        return LEAD + ((n * K4 + k) * 2 + which) * (2 * PRODUCTS) + m * 2

    def at(y, strip, px, n, which):
        return (y * OW + strip * BOTH + px) * CO + n * 2 + which

    def finish(q, n, value, which):
        params = [q[HEAD + n * QW + 2 + 2 * i + which] for i in range(ep.words)]
        return ep.apply(value >> i32(1) if HALVE else value, params)

    def output(value, skip, constants, index):
        return k.residual.expression(constants, value, skip[index]) if ADD else value

    def multiply(fields, taps, m, q, strip, y, n):
        """The call of the routine."""
        places = ((fields, field(strip, y, 0, 0, 0)), (taps, tap(n, 0, 0, 0)), (m, 0), (q, HEAD_WORDS))
        name = products_routine(UK, ROUNDS)
        return T.evaluate(T.call_extern("int32", name, *(T.address_of(buffer[place]) for buffer, place in places)))

    def keeper(kept):
        """What stores a word and gives it back."""
        places = iter(range(_KEPT))

        def keep(value):
            place = next(places)
            T.buffer_store(kept, value, [place])
            return kept[place]

        return keep

    def filter_inputs(f, kept, fields, strip, row, cw, tile):
        """Statements that store the transformed inputs of a tile."""
        keep = keeper(kept)
        halves = [[f[half * COLUMNS + tile * TILE + j] for j in range(PRODUCTS)] for half in range(2)]
        _store(fields, lambda m: field(strip, row, cw, tile, m), [filtering.inputs(d, keep) for d in halves])

    def filter_weights(g, kept, taps, o, kw):
        """Statements that store the transformed weights of a row."""
        keep = keeper(kept)
        halves = [[g[half * 3 + j] for j in range(3)] for half in range(2)]
        _store(taps, lambda m: tap(o // 2, kw, o % 2, m), [filtering.weights(values, keep) for values in halves])

    def write(q, m, acc, result, skip, constants, out, row, strip, n):
        """Statements that make the outputs of two tiles and two channels of their products.

        Those of larger tiles are made one tile and channel at a time: registers hold no more.
        """
        for group in [range(4)] if TILE == 2 else [range(j, j + 1) for j in range(4)]:
            for j in group:
                products = [m[p * 4 + j] for p in range(PRODUCTS)]
                T.buffer_store(acc, filtering.first(products, q[HEAD + n * QW + j % 2]), [j])
                for i, value in enumerate(filtering.outputs(products, acc[j])):
                    T.buffer_store(result, value, [i * 4 + j])
            for i in range(TILE):
                for j in group:
                    column = j // 2 * TILE + i
                    if OW % BOTH == 0:
                        write_one(q, result, skip, constants, out, at(row, strip, column, n, j % 2), n, i * 4 + j)
                        continue
                    with T.If(strip * BOTH + column < OW), T.Then():
                        write_one(q, result, skip, constants, out, at(row, strip, column, n, j % 2), n, i * 4 + j)

    def write_one(q, result, skip, constants, out, place, n, index):
        # Kept first: sums use it more than once, and what TVM simplifies would grow with that.
        T.buffer_store(result, finish(q, n, result[index], index % 2).astype("int32"), [index])
        T.buffer_store(out, output(result[index].astype("int8"), skip, constants, place), [place])

    @T.inline
    def transform(x, q, d, f, kept, fields, strip, band):
        """The inputs of a strip."""
        for row in range(VR):
            for cw in range(q[3]):
                for j in T.unroll(COLUMNS):
                    d[j] = ZERO
                if T.And(band * ROWS + row - c.top >= 0, band * ROWS + row - c.top < H):
                    for j in T.unroll(COLUMNS):
                        d[j] = word(x, q, band * ROWS + row, strip, j, cw)
                for j in T.unroll(COLUMNS):
                    f[j] = even_bytes(d[j])
                    f[COLUMNS + j] = odd_bytes(d[j])
                filter_inputs(f, kept, fields, strip, row, cw, 0)
                filter_inputs(f, kept, fields, strip, row, cw, 1)

    @T.prim_func(s_tir=True)
    def conv(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((CO * 9 * C4,), "int32"),
        q: T.Buffer((HEAD + CO // 2 * QW,), "int32"),
        skip: T.Buffer((RN,), "int8"),
        constants: T.Buffer((TN,), "int32"),
        out: T.Buffer((OH * OW * CO,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        taps = T.alloc_buffer((LEAD + BLOCK * K4 * 4 * PRODUCTS,), "int32")
        fields = T.alloc_buffer((LEAD + (STRIPS if WHOLE else 1) * VR * C4 * 4 * PRODUCTS,), "int32")
        g = T.alloc_buffer((6,), "int32")
        d = T.alloc_buffer((COLUMNS,), "int32")
        kept = T.alloc_buffer((_KEPT,), "int32")
        f = T.alloc_buffer((2 * COLUMNS,), "int32")
        acc = T.alloc_buffer((4,), "int32")
        m = T.alloc_buffer((4 * PRODUCTS,), "int32")
        result = T.alloc_buffer((4 * TILE,), "int32")
        if WHOLE:
            for strip in range(STRIPS):
                transform(x, q, d, f, kept, fields, strip, 0)
        for block in range(CO // (2 * BLOCK)):
            for o in range(2 * BLOCK):
                for kw in range(q[2]):
                    for t in T.unroll(3):
                        g[t] = even_bytes(w[((block * BLOCK * 2 + o) * K4 + kw) * 3 + t])
                        g[3 + t] = odd_bytes(w[((block * BLOCK * 2 + o) * K4 + kw) * 3 + t])
                    filter_weights(g, kept, taps, o, kw)
            for strip in range(STRIPS):
                for band in range(OH // ROWS):
                    if not WHOLE:
                        transform(x, q, d, f, kept, fields, strip, band)
                    for y in range(ROWS):
                        for n in range(BLOCK):
                            if ROUTINE:
                                multiply(fields, taps, m, q, strip, y, n)
                            else:
                                for p in range(q[1]):
                                    for j in T.unroll(4):
                                        acc[j] = 0
                                    for k0 in range(1 if ROUNDS == 1 else q[0]):
                                        for ku in T.unroll(UK):
                                            for j in T.unroll(4):
                                                acc[j] = smlad(
                                                    fields[field(strip, y, k0 * UK + ku, j // 2, p) + 1],
                                                    taps[tap(n, k0 * UK + ku, j % 2, p) + 1],
                                                    smlad(
                                                        fields[field(strip, y, k0 * UK + ku, j // 2, p)],
                                                        taps[tap(n, k0 * UK + ku, j % 2, p)],
                                                        acc[j],
                                                    ),
                                                )
                                    for j in T.unroll(4):
                                        m[p * 4 + j] = acc[j]
                            write(q, m, acc, result, skip, constants, out, band * ROWS + y, strip, block * BLOCK + n)

    conv = conv.with_attr("tvmcompress.workspaces", k.workspaces)
    return conv.with_attr("tvmcompress.inplace", 3) if ADD else conv
