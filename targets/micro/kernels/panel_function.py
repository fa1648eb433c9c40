"""The function of a convolution by panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import tirx
from tvm.script import tirx as T

from .packing import first_plane, second_plane
from .routines import panel_routine
from .words import even_bytes, hidden_zero, load_word, odd_bytes, pack_bottoms, qadd, smlad

if TYPE_CHECKING:
    from .panel import PanelConvolution

# mypy: ignore-errors

LEAD_WORDS = 2
"""Words that nothing is in before weights and panels. With an offset in every address none takes the form of two registers,
which would keep its load from being paired."""


def panel_function(k: PanelConvolution) -> tirx.PrimFunc:
    c, plan, ep = k.conv, k.plan, k.conv.epilogue
    H, W, C, OH, OW, CO = c.height, c.width, c.channels, c.out_height, c.out_width, c.out_channels
    SH, KH = c.strides[0], c.kernel[0]
    K4, RW, UK, PX = k.words, k.row_words, plan.unroll, plan.pixels
    LEAD, ROUNDS, HALVES = LEAD_WORDS, k.rounds, plan.halves
    ROUTINE = plan.routine
    N = -(-CO // 2)
    QW = 2 + 2 * ep.words
    WIDE, LATE = plan.int16_weights, plan.late_bias
    WW = 4 if WIDE else 2
    WN = N * (K4 * WW + QW) if ROUTINE else LEAD + N * K4 * WW
    QN = 5 if ROUTINE else 2 + N * QW
    SOURCE = plan.source
    COPY, PITCH, ROWS = k.source.copied, k.source.pitch, k.source.rows
    M, PANELS, STEPS = k.source.walk, k.source.panels, k.source.walks
    pixel, base = k.source.pixel, k.source.base
    ZP = c.input_zero_point
    REST = k.rest
    FULL = KH * RW
    # Bytes of an input row that fall inside the copied rows.
    COPIED = min(W * C, PITCH - k.source.slack - c.left * C)
    TAIL = k.words - k.used_words
    RESTW = k.rest_words
    HAS_TAIL, HAS_REST = TAIL > 0, REST > 0
    RU = k.row_unroll
    SIZE = k.source.bytes if COPY else 4

    ADD = k.residual is not None
    # A routine writes where no operand of the sum lies.
    APART = ROUTINE and ADD
    GROUP = 4 if CO % 4 == 0 else 2
    RN = OH * OW * CO if ADD else H * W * C
    TN = k.residual.words if ADD else QN
    name = panel_routine(PX, WIDE, ep, UK, ROUNDS) if ROUTINE else ""

    def place(k, half, px):
        """Where a word of the panel stands: (k0, k2) or (k1, k3) of four k of a pixel."""
        return LEAD + (k * 2 * PX + half * PX + px if HALVES else (k * PX + px) * 2 + half)

    def field(n, k, half, px):
        """The same, bound to the loop over channels: hoisted out of it, loads would be spilled."""
        return place(k, half, px) + (hidden_zero(n) if ROUNDS == 1 else 0)

    def output(value, skip, constants, index):
        return k.residual.expression(constants, value, skip[index]) if ADD else value

    def at(step, panel, px, n, which):
        """Offset of an output."""
        return (step * OW + pixel(panel, px)) * CO + n * 2 + which

    def factor(w, n, k, half, which):
        """A pair of weights of one channel of a pair; the first one's may bear those of the other."""
        if WIDE:
            return w[LEAD + ((n * K4 + k) * 2 + which) * 2 + half]
        word = w[LEAD + (n * K4 + k) * 2 + half]
        return T.Select(which == 0, word, even_bytes(word))

    def trips(q):
        """Rounds of the inner loop: from memory, so that LLVM does not know them, unless there is but one."""
        return 1 if ROUNDS == 1 else q[0]

    def rest_byte(buf, start, index):
        """Byte `index` of those at the ends of the kernel's rows, as a word.

        Past the last one, where weights are zero, it is the last.
        """
        index = tirx.min(index, KH * REST - 1)
        return buf[start + index // REST * PITCH + 4 * RW + index % REST].astype("int32")

    def rest_pair(buf, start, word, which):
        """Two of the four bytes of a shared word: (0, 2) or (1, 3)."""
        return pack_bottoms(rest_byte(buf, start, word * 4 + which), rest_byte(buf, start, word * 4 + which + 2))

    def multiply(panel, w, q, out, first, distances):
        """The call of the routine, which writes outputs from `first` on."""
        places = [T.address_of(buffer[place]) for buffer, place in ((panel, LEAD), (w, 0), (out, first), (q, 2))]
        return T.evaluate(T.call_extern("int32", name, *places, *distances))

    def distances(step, p):
        """Bytes from the outputs of a panel's first pixel to those of the others."""
        return [at(step, p, px, 0, 0) - at(step, p, 0, 0, 0) for px in (1, PX - 1)]

    def finish(q, n, acc_a, acc_b, which):
        """The output of one channel of a pair."""
        params = [q[2 + n * QW + 2 + 2 * i + which] for i in range(ep.words)]
        if WIDE:
            return ep.apply(acc_a if which == 0 else acc_b, params)
        if which == 1:
            return ep.apply(second_plane(acc_b, ep.gain), params)
        first = first_plane(acc_a, acc_b, ep.gain)
        return ep.apply(qadd(first, q[2 + n * QW]) if LATE else first, params)

    @T.prim_func(s_tir=True)
    def conv(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((WN,), "int32"),
        q: T.Buffer((QN,), "int32"),
        skip: T.Buffer((RN,), "int8"),
        constants: T.Buffer((TN,), "int32"),
        out: T.Buffer((OH * OW * CO,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        source = T.alloc_buffer((SIZE,), "int8")
        panel = T.alloc_buffer((LEAD + K4 * PX * 2,), "int32")
        acc = T.alloc_buffer((2 * PX,), "int32")
        result = T.alloc_buffer((2 * PX,), "int8")
        operand = T.alloc_buffer((PX * CO if APART else 1,), "int8")
        if COPY:
            for i in range(SIZE // 4):
                source[T.ramp(i * 4, 1, 4)] = T.broadcast(T.int8(ZP), 4)
        if SOURCE == "image":
            for y in range(H):
                if y + c.top < ROWS:
                    for i in range(COPIED):
                        source[(y + c.top) * PITCH + c.left * C + i] = x[y * W * C + i]
        if HAS_TAIL:
            for t in range(TAIL * PX * 2):
                panel[LEAD + (FULL + RESTW) * PX * 2 + t] = 0
        for step in range(STEPS):
            if SOURCE == "strip":
                for ky in range(KH):
                    if T.And(step * SH + ky - c.top >= 0, step * SH + ky - c.top < H):
                        for i in range(COPIED // 4):
                            source[T.ramp(ky * PITCH + c.left * C + i * 4, 1, 4)] = x.vload(
                                [(step * SH + ky - c.top) * (W * C) + i * 4], "int8x4"
                            )
                        for i in T.unroll(COPIED % 4):
                            source[ky * PITCH + c.left * C + COPIED // 4 * 4 + i] = x[
                                (step * SH + ky - c.top) * (W * C) + COPIED // 4 * 4 + i
                            ]
                    else:
                        for i in range(PITCH // 4):
                            source[T.ramp(ky * PITCH + i * 4, 1, 4)] = T.broadcast(T.int8(ZP), 4)
            for p in range(PANELS):
                for ky in range(KH):
                    for i0 in range(q[1] if RW > RU else RW // RU):
                        for i1 in T.unroll(RU):
                            for px in T.unroll(PX):
                                if COPY:
                                    panel[place(ky * RW + i0 * RU + i1, 0, px)] = even_bytes(
                                        load_word(source, base(pixel(p, px)) + ky * PITCH + (i0 * RU + i1) * 4)
                                    )
                                    panel[place(ky * RW + i0 * RU + i1, 1, px)] = odd_bytes(
                                        load_word(source, base(pixel(p, px)) + ky * PITCH + (i0 * RU + i1) * 4)
                                    )
                                else:
                                    panel[place(i0 * RU + i1, 0, px)] = even_bytes(
                                        load_word(x, base(pixel(p, px)) + (i0 * RU + i1) * 4)
                                    )
                                    panel[place(i0 * RU + i1, 1, px)] = odd_bytes(
                                        load_word(x, base(pixel(p, px)) + (i0 * RU + i1) * 4)
                                    )
                if HAS_REST:
                    for px in T.unroll(PX):
                        for t in T.unroll(RESTW):
                            panel[place(FULL + t, 0, px)] = rest_pair(source, base(pixel(p, px)), t, 0)
                            panel[place(FULL + t, 1, px)] = rest_pair(source, base(pixel(p, px)), t, 1)
                if APART:
                    multiply(panel, w, q, operand, 0, (CO, (PX - 1) * CO))
                    for i in range(T.min(PX, M - p * PX) * (CO // GROUP)):
                        for j in T.unroll(GROUP):
                            out[(step * OW + p * PX) * CO + i * GROUP + j] = output(
                                operand[i * GROUP + j], skip, constants, (step * OW + p * PX) * CO + i * GROUP + j
                            )
                elif ROUTINE:
                    multiply(panel, w, q, out, at(step, p, 0, 0, 0), distances(step, p))
                else:
                    for n in range(N):
                        for j in T.unroll(2 * PX):
                            acc[j] = q[2 + n * QW + (1 if LATE else j % 2)]
                        for k0 in range(trips(q)):
                            for ku in T.unroll(UK):
                                if HALVES:
                                    for half in T.unroll(2):
                                        for px in T.unroll(PX):
                                            for j in T.unroll(2):
                                                acc[px * 2 + j] = smlad(
                                                    panel[field(n, k0 * UK + ku, half, px)],
                                                    factor(w, n, k0 * UK + ku, half, j),
                                                    acc[px * 2 + j],
                                                )
                                else:
                                    for px in T.unroll(PX):
                                        for j in T.unroll(2):
                                            acc[px * 2 + j] = smlad(
                                                panel[field(n, k0 * UK + ku, 1, px)],
                                                factor(w, n, k0 * UK + ku, 1, j),
                                                smlad(
                                                    panel[field(n, k0 * UK + ku, 0, px)],
                                                    factor(w, n, k0 * UK + ku, 0, j),
                                                    acc[px * 2 + j],
                                                ),
                                            )
                        for px in T.unroll(PX):
                            result[px * 2] = finish(q, n, acc[px * 2], acc[px * 2 + 1], 0)
                            result[px * 2 + 1] = finish(q, n, acc[px * 2], acc[px * 2 + 1], 1)
                        for px in T.unroll(PX):
                            # Sums may lie where their operand lies, so they must not be made twice.
                            if T.Or(not ADD, p * PX + px < M):
                                out[at(step, p, px, n, 0)] = output(result[px * 2], skip, constants, at(step, p, px, n, 0))
                                if n * 2 + 1 < CO:
                                    out[at(step, p, px, n, 1)] = output(
                                        result[px * 2 + 1], skip, constants, at(step, p, px, n, 1)
                                    )

    conv = conv.with_attr("tvmcompress.workspaces", k.workspaces or {"": 0})
    if ADD:
        return conv.with_attr("tvmcompress.inplace", 3)
    return conv.with_attr("tvmcompress.inplace", 0) if k.inplace_pointwise else conv
