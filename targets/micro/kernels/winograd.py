"""3x3 convolutions of stride 1 by Winograd's minimal filtering, for cores with the DSP extension.

F(2, 3) along rows makes two neighbouring outputs of a row of three taps g from four inputs d by four products instead of six
(Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016). Multiplied by two it needs no fractions:

    m0 = (d0 - d2) * 2 g0             m1 = (d1 + d2) * (g0 + g1 + g2)
    m2 = (d2 - d1) * (g0 - g1 + g2)   m3 = (d3 - d1) * 2 g2
    2 y0 = m0 + m1 + m2               2 y1 = m1 - m2 + m3

All factors are halfwords and all sums exact, so results are those of the plain convolution; the two is the gain that
requantization asks for. Each m is a sum over three rows and all channels: four matrix products with two thirds of the
multiply-accumulates, computed for two tiles of two pixels by two output channels at a time.

Transformed weights take 8/3 times the bytes of int8 ones, too much flash. They are made in the workspace, for a block of
output channels at a time; transformed inputs, for strips of four columns by some rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.vectors import i32
from .elementwise import Sum
from .packing import pair_parameters
from .panel import Convolution
from .words import even_bytes, load_word, odd_bytes, sadd16, smlad, ssub16

# mypy: ignore-errors

_HEAD = 6
_LEAD = 2
"""Words that nothing is in before the transformed values. With an offset in every address none takes the form of two
registers, which would keep its load from being paired."""


def is_minimal(conv: Convolution) -> bool:
    """Whether minimal filtering can compute a convolution."""
    c = conv
    return c.kernel == (3, 3) and c.strides == (1, 1) and c.channels % 4 == 0 and c.out_channels % 2 == 0


@dataclass(frozen=True)
class WinogradPlan:
    """The choices of the template.

    Attributes:
        block: Output channels whose weights are transformed at a time; even, divides their number.
        rows: Output rows of a strip; divides their number.
        whole: Whether the inputs of all strips are transformed once, before anything else; `rows` is then all of them.
        unroll: Words of four k in one round of the inner loop; divides 3/4 of the input channels.
    """

    block: int
    rows: int
    whole: bool
    unroll: int


class WinogradConvolution:
    """One convolution by one plan: the packed constants and the function.

    With `residual` as of `panel.PanelConvolution`. The convolution has a 3x3 kernel, stride 1, input channels in multiples of
    four, and an even number of output channels.
    """

    def __init__(self, conv: Convolution, plan: WinogradPlan, residual: Sum | None = None) -> None:
        self.conv, self.plan, self.residual = conv, plan, residual

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """Pack (O, 3, 3, C) int8, flat int32: a word is four channels, in the order O, row, channels, tap."""
        grouped = weights.reshape(len(weights), 3, 3, -1, 4).transpose(0, 1, 3, 2, 4)
        return np.ascontiguousarray(grouped).view(np.int32).ravel()

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Pack what the epilogue needs, flat int32, behind the trip counts of loops that LLVM should not unroll."""
        words = self.conv.epilogue.parameters(multiplier, shift)
        head = [self.words // self.plan.unroll, 4, self.words, self.conv.channels // 4, self.conv.top, self.conv.left]
        return np.concatenate([np.array(head, np.int32), pair_parameters(bias, words, "wide", 2).ravel()])

    @property
    def words(self) -> int:
        """Words of four k in a reduction."""
        return 3 * self.conv.channels // 4

    @property
    def strips(self) -> int:
        """Strips of four columns."""
        return -(-self.conv.out_width // 4)

    @property
    def workspaces(self) -> dict[str, int]:
        """Bytes of the transformed weights and inputs."""
        c, plan = self.conv, self.plan
        strips = self.strips if plan.whole else 1
        fields = 16 * strips * (plan.rows + 2) * c.channels
        return {"taps": 4 * _LEAD + 24 * plan.block * c.channels, "fields": 4 * _LEAD + fields}

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, other operand, constants of the sum, output), all flat."""
        return _build(self)


def _build(k: WinogradConvolution) -> tirx.PrimFunc:
    c, plan, ep = k.conv, k.plan, k.conv.epilogue
    H, W, C, OH, OW, CO = c.height, c.width, c.channels, c.out_height, c.out_width, c.out_channels
    C4, K4, UK = C // 4, k.words, plan.unroll
    BLOCK, ROWS, STRIPS, WHOLE = plan.block // 2, plan.rows, k.strips, plan.whole
    VR = ROWS + 2
    HEAD, LEAD = _HEAD, _LEAD
    ROUNDS = K4 // UK
    QW = 2 + 2 * ep.words
    ADD = k.residual is not None
    RN = OH * OW * CO if ADD else H * W * C
    TN = k.residual.words if ADD else HEAD + CO // 2 * QW
    HALVE = ep.gain == 1
    ZERO = i32((c.input_zero_point & 0xFF) * 0x01010101)

    def word(x, q, row, strip, j, cw):
        """Four channels of a column of a strip; the zero point outside the input."""
        column = strip * 4 + j - c.left
        # The padding from memory keeps constant offsets positive: negative ones do not fit an instruction.
        load = load_word(x, ((row - q[4]) * W + strip * 4 + j - q[5]) * C + cw * 4)
        # Where a condition holds for every strip, the simplifier drops it.
        return T.if_then_else(T.And(column >= 0, column < W), load, ZERO)

    def field(strip, row, k, tile, m):
        """Where the two words of a transformed input stand, apart from others that are read with them: so they are paired."""
        return LEAD + ((((strip if WHOLE else 0) * VR + row) * C4 + k) * 2 + tile) * 8 + m * 2

    def tap(n, k, which, m):
        """Where the two words of a transformed weight stand."""
        return LEAD + ((n * K4 + k) * 2 + which) * 8 + m * 2

    def at(y, strip, px, n, which):
        return (y * OW + strip * 4 + px) * CO + n * 2 + which

    def finish(q, n, value, which):
        params = [q[HEAD + n * QW + 2 + 2 * i + which] for i in range(ep.words)]
        return ep.apply(value >> i32(1) if HALVE else value, params)

    def output(value, skip, constants, index):
        return k.residual.expression(constants, value, skip[index]) if ADD else value

    @T.inline
    def transform(x, q, d, f, fields, strip, band):
        """The inputs of a strip."""
        for row in range(VR):
            for cw in range(q[3]):
                for j in T.unroll(6):
                    d[j] = ZERO
                if T.And(band * ROWS + row - c.top >= 0, band * ROWS + row - c.top < H):
                    for j in T.unroll(6):
                        d[j] = word(x, q, band * ROWS + row, strip, j, cw)
                for j in T.unroll(6):
                    f[j] = even_bytes(d[j])
                    f[6 + j] = odd_bytes(d[j])
                for t in T.unroll(2):
                    for half in T.unroll(2):
                        fields[field(strip, row, cw, t, 0) + half] = ssub16(f[half * 6 + 2 * t], f[half * 6 + 2 * t + 2])
                        fields[field(strip, row, cw, t, 1) + half] = sadd16(f[half * 6 + 2 * t + 1], f[half * 6 + 2 * t + 2])
                        fields[field(strip, row, cw, t, 2) + half] = ssub16(f[half * 6 + 2 * t + 2], f[half * 6 + 2 * t + 1])
                        fields[field(strip, row, cw, t, 3) + half] = ssub16(f[half * 6 + 2 * t + 3], f[half * 6 + 2 * t + 1])

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
        taps = T.alloc_buffer((LEAD + BLOCK * K4 * 16,), "int32")
        fields = T.alloc_buffer((LEAD + (STRIPS if WHOLE else 1) * VR * C4 * 16,), "int32")
        g = T.alloc_buffer((6,), "int32")
        d = T.alloc_buffer((6,), "int32")
        f = T.alloc_buffer((12,), "int32")
        acc = T.alloc_buffer((4,), "int32")
        m = T.alloc_buffer((16,), "int32")
        result = T.alloc_buffer((8,), "int32")
        if WHOLE:
            for strip in range(STRIPS):
                transform(x, q, d, f, fields, strip, 0)
        for block in range(CO // (2 * BLOCK)):
            for o in range(2 * BLOCK):
                for kw in range(q[2]):
                    for t in T.unroll(3):
                        g[t] = even_bytes(w[((block * BLOCK * 2 + o) * K4 + kw) * 3 + t])
                        g[3 + t] = odd_bytes(w[((block * BLOCK * 2 + o) * K4 + kw) * 3 + t])
                    for half in T.unroll(2):
                        taps[tap(o // 2, kw, o % 2, 0) + half] = sadd16(g[half * 3], g[half * 3])
                        taps[tap(o // 2, kw, o % 2, 1) + half] = sadd16(sadd16(g[half * 3], g[half * 3 + 2]), g[half * 3 + 1])
                        taps[tap(o // 2, kw, o % 2, 2) + half] = ssub16(sadd16(g[half * 3], g[half * 3 + 2]), g[half * 3 + 1])
                        taps[tap(o // 2, kw, o % 2, 3) + half] = sadd16(g[half * 3 + 2], g[half * 3 + 2])
            for strip in range(STRIPS):
                for band in range(OH // ROWS):
                    if not WHOLE:
                        transform(x, q, d, f, fields, strip, band)
                    for y in range(ROWS):
                        for n in range(BLOCK):
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
                            for j in T.unroll(4):
                                acc[j] = m[4 + j] + q[HEAD + (block * BLOCK + n) * QW + j % 2]
                                result[j] = m[j] + acc[j] + m[8 + j]
                                result[4 + j] = acc[j] - m[8 + j] + m[12 + j]
                            for j in T.unroll(8):
                                if strip * 4 + j // 2 % 2 * 2 + j // 4 < OW:
                                    out[at(band * ROWS + y, strip, j // 2 % 2 * 2 + j // 4, block * BLOCK + n, j % 2)] = output(
                                        finish(q, block * BLOCK + n, result[j], j % 2),
                                        skip,
                                        constants,
                                        at(band * ROWS + y, strip, j // 2 % 2 * 2 + j // 4, block * BLOCK + n, j % 2),
                                    )

    conv = conv.with_attr("tvmcompress.workspaces", k.workspaces)
    return conv.with_attr("tvmcompress.inplace", 3) if ADD else conv
