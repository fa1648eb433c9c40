"""Convolution and pointwise convolution for cores with the DSP extension.

The output is walked in panels of two or three pixels. A panel's receptive fields are unpacked once, from bytes to halfwords,
and then multiplied with the weights of all output channels, two channels at a time: as much as the fourteen free registers
hold. Where the fields are taken from depends on the layer:

- *direct*: a 1x1 kernel without padding reads the input as it lies;
- *strip*: the kernel's rows are copied to a strip padded with the zero point, one output row at a time;
- *image*: the whole padded input is copied once, for maps too narrow to fill a panel with one row.

Strategy and layout follow from counting instructions: per word of four k and three pixels the inner loop takes 12 SMLAD,
2 SXTB16 and 4 LDRD for 24 multiply-accumulates with byte planes (see `packing`), 12 SMLAD and 5 LDRD with int16 weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from .elementwise import Sum
from .epilogue import Epilogue
from .packing import byte_planes, first_plane, int16_words, pair_parameters, second_plane
from .words import even_bytes, hidden_zero, load_word, odd_bytes, pack_bottoms, qadd, smlad

# mypy: ignore-errors

_STACK_BYTES = 264
"""Panels up to this size live on the stack."""

_LONGEST_UNPACKING = 2

_LEAD = 2
"""Words that nothing is in before weights and panels. With an offset in every address none takes the form of two registers,
which would keep its load from being paired."""


@dataclass(frozen=True)
class Convolution(ConvolutionShape):
    """The shape of a convolution, and how its accumulators become outputs."""

    epilogue: Epilogue


@dataclass(frozen=True)
class PanelPlan:
    """The choices of the template.

    Attributes:
        source: "direct", "strip" or "image".
        pixels: Pixels of a panel, 2 or 3.
        unroll: Words of four k in one round of the inner loop.
        halves: Whether a panel has (k0, k2) of all pixels before (k1, k3), which holds fewer weights at a time but leaves
            more loads single.
        int16_weights: Whether weights are int16 in flash.
        late_bias: Whether the bias of the first channel of a pair is added at the end, because 256 times it and the sum
            would not fit a word; of byte planes only.
    """

    source: str
    pixels: int
    unroll: int
    halves: bool = False
    int16_weights: bool = False
    late_bias: bool = False


class PanelConvolution:
    """One convolution by one plan: the packed constants and the function.

    With `residual` the convolution's output is the first operand of a sum, whose second one is a tensor of the output's
    shape; the result may lie where that tensor lies.
    """

    def __init__(self, conv: Convolution, plan: PanelPlan, residual: Sum | None = None) -> None:
        self.conv, self.plan, self.residual = conv, plan, residual
        row = conv.kernel[1] * conv.channels
        self.row_words = row // 4
        self.rest = row % 4
        # Bytes at the end of the kernel's rows that do not fill a word share words.
        self.rest_words = -(-conv.kernel[0] * self.rest // 4)
        used = conv.kernel[0] * self.row_words + self.rest_words
        self.words = -(-used // plan.unroll) * plan.unroll
        self.used_words = used

    @property
    def row_unroll(self) -> int:
        """Words of a row that are unpacked in one round."""
        return max(n for n in range(1, _LONGEST_UNPACKING + 1) if self.row_words % n == 0)

    @property
    def walk(self) -> int:
        """Pixels that the panels of one walk cover: a row in a strip, the whole map otherwise."""
        c = self.conv
        return c.out_width if self.plan.source == "strip" else c.out_height * c.out_width

    @property
    def panel_bytes(self) -> int:
        """Bytes of an unpacked panel."""
        return 8 * self.words * self.plan.pixels + 4 * _LEAD

    @cached_property
    def row_bytes(self) -> int:
        """Pitch of a row of the strip or of the padded image; of the input itself when read directly."""
        c = self.conv
        if self.plan.source == "direct":
            return c.width * c.channels
        covered = (c.out_width - 1) * c.strides[1] + c.kernel[1]
        return -(-max(covered, c.left + c.width) * c.channels // 4) * 4 + 4

    @property
    def source_rows(self) -> int:
        """Rows of the strip or of the padded image."""
        c = self.conv
        return c.kernel[0] if self.plan.source == "strip" else (c.out_height - 1) * c.strides[0] + c.kernel[0]

    @property
    def source_bytes(self) -> int:
        """Bytes of the strip or of the padded image; 0 where the input is read as it lies."""
        return 0 if self.plan.source == "direct" else self.source_rows * self.row_bytes

    @property
    def workspaces(self) -> dict[str, int]:
        """Bytes of the workspaces by name."""
        # Scalar accesses only, so a small panel may stay on the stack; the source is filled by vectors.
        panel = {} if self.panel_bytes <= _STACK_BYTES else {"panel": self.panel_bytes}
        return {**panel, **({"source": self.source_bytes} if self.source_bytes else {})}

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """Pack (O, KH, KW, C) int8 weights, flat int32."""
        c = self.conv
        rows = weights.reshape(c.out_channels, c.kernel[0], -1)
        full = rows[:, :, : 4 * self.row_words].reshape(c.out_channels, -1)
        rest = rows[:, :, 4 * self.row_words :].reshape(c.out_channels, -1)
        flat = np.zeros((c.out_channels, 4 * self.words), np.int8)
        flat[:, : full.shape[1]] = full
        flat[:, full.shape[1] : full.shape[1] + rest.shape[1]] = rest
        packed = int16_words(flat, c.epilogue.gain) if self.plan.int16_weights else byte_planes(flat)
        return np.concatenate([np.zeros(_LEAD, np.int32), packed.ravel()])

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Pack what the epilogue needs, flat int32, behind the trip counts of the inner loop and of that which unpacks.

        LLVM hoists, spills and unrolls when it knows a trip count; read from memory it stays unknown.
        """
        words = self.conv.epilogue.parameters(multiplier, shift)
        form = "wide" if self.plan.int16_weights else "late" if self.plan.late_bias else "planes"
        packed = pair_parameters(bias, words, form, self.conv.epilogue.gain).ravel()
        head = [self.words // self.plan.unroll, self.row_words // self.row_unroll]
        return np.concatenate([np.array(head, np.int32), packed])

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, other operand, constants of the sum, output), all flat.

        Without a residual the other operand and the constants are not read: any tensor will do.
        """
        return _build(self)

    @property
    def inplace_pointwise(self) -> bool:
        """Whether the output may lie where the input lies: every pixel is unpacked before it is written."""
        c = self.conv
        return (
            self.plan.source == "direct"
            and c.strides == (1, 1)
            and (c.out_height, c.out_width) == (c.height, c.width)
            and c.out_channels == c.channels
        )


def _build(k: PanelConvolution) -> tirx.PrimFunc:
    c, plan, ep = k.conv, k.plan, k.conv.epilogue
    H, W, C, OH, OW, CO = c.height, c.width, c.channels, c.out_height, c.out_width, c.out_channels
    SH, SW = c.strides
    KH = c.kernel[0]
    K4, RW, UK, PX = k.words, k.row_words, plan.unroll, plan.pixels
    LEAD, ROUNDS, HALVES = _LEAD, K4 // UK, plan.halves
    N = -(-CO // 2)
    QW = 2 + 2 * ep.words
    WIDE, LATE = plan.int16_weights, plan.late_bias
    WW = 4 if WIDE else 2
    SOURCE = plan.source
    COPY = SOURCE != "direct"
    PITCH, ROWS = k.row_bytes, k.source_rows
    M = k.walk
    PANELS = -(-M // PX)
    STEPS = OH if SOURCE == "strip" else 1
    ZP = c.input_zero_point
    REST = k.rest
    FULL = KH * RW
    # Bytes of an input row that fall inside the copied rows.
    COPIED = min(W * C, PITCH - 4 - c.left * C)
    TAIL = k.words - k.used_words
    RESTW = k.rest_words
    HAS_TAIL, HAS_REST = TAIL > 0, REST > 0
    RU = k.row_unroll
    SIZE = k.source_bytes if COPY else 4

    ADD = k.residual is not None
    RN = OH * OW * CO if ADD else H * W * C
    TN = k.residual.words if ADD else 2 + N * QW

    def pixel(panel, px):
        # The last panel repeats its last pixel rather than earlier ones, which may be overwritten by now.
        position = panel * PX + px
        return T.min(position, M - 1) if M % PX else position

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

    def base(p):
        """Offset of a pixel's receptive field in the source."""
        if SOURCE == "strip":
            return p * (SW * C)
        if SOURCE == "direct" and SH == 1 and SW == 1:
            return p * C
        return tirx.floordiv(p, OW) * (SH * PITCH) + tirx.floormod(p, OW) * (SW * C)

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
        w: T.Buffer((LEAD + N * K4 * WW,), "int32"),
        q: T.Buffer((2 + N * QW,), "int32"),
        skip: T.Buffer((RN,), "int8"),
        constants: T.Buffer((TN,), "int32"),
        out: T.Buffer((OH * OW * CO,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        source = T.alloc_buffer((SIZE,), "int8")
        panel = T.alloc_buffer((LEAD + K4 * PX * 2,), "int32")
        acc = T.alloc_buffer((2 * PX,), "int32")
        result = T.alloc_buffer((2 * PX,), "int8")
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
                                out[at(step, p, px, n, 1)] = output(result[px * 2 + 1], skip, constants, at(step, p, px, n, 1))

    conv = conv.with_attr("tvmcompress.workspaces", k.workspaces or {"": 0})
    if ADD:
        return conv.with_attr("tvmcompress.inplace", 3)
    return conv.with_attr("tvmcompress.inplace", 0) if k.inplace_pointwise else conv
