"""Depthwise 3x3 convolution for cores with the DSP extension.

Channels lie side by side in memory, but a depthwise kernel multiplies along rows. Four channels at a time, a band of input
rows is therefore unpacked into planes: for each channel rows of halfword pairs, padded with the zero point. On the planes
one SMLAD multiplies two horizontal neighbours, and two outputs are made at a time from three or four words a row:

    weights of a kernel row: (w0, w1), (w1, w2)
    stride 1, words a = (x0, x1), b = (x2, x3):   y0 = a * (w0, w1) + x2 * w2      y1 = x1 * w0 + b * (w1, w2)
    stride 2, words a, b, c = (x4, x5):           y0 = a * (w0, w1) + x2 * w2      y1 = b * (w0, w1) + x4 * w2
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from .epilogue import Epilogue
from .words import even_bytes, i32, load_word, odd_bytes, pack_bottoms, pack_tops, smlabt, smlad, smlatb

# mypy: ignore-errors


@dataclass(frozen=True)
class Depthwise:
    """The shape of a depthwise 3x3 convolution, NHWC with batch 1, one output channel a channel.

    Attributes:
        height, width, channels: Of the input; channels a multiple of 4.
        out_height, out_width: Of the output.
        stride: 1 or 2, in both directions.
        top, left: Padding before, 0 or 1.
        input_zero_point: What padding holds.
        epilogue: How accumulators become outputs.
        band: Output rows made from one unpacked band.
    """

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    stride: int
    top: int
    left: int
    input_zero_point: int
    epilogue: Epilogue
    band: int

    @property
    def rows(self) -> int:
        """Input rows of a band."""
        return (self.band - 1) * self.stride + 3

    @property
    def row_words(self) -> int:
        """Halfword pairs of an unpacked row."""
        pairs = -(-self.out_width // 2)
        return pairs + 1 if self.stride == 1 else 2 * pairs + 1

    @property
    def workspace_bytes(self) -> int:
        """Bytes of the unpacked band."""
        return 16 * self.rows * self.row_words


def pack_weights(layer: Depthwise, weights: np.ndarray) -> np.ndarray:
    """(3, 3, C) int8 as two words a kernel row and channel, flat int32 in the order channel, row, word."""
    w = layer.epilogue.gain * weights.astype(np.int16).transpose(2, 0, 1)
    return np.ascontiguousarray(np.stack([w[..., 0:2], w[..., 1:3]], axis=2)).view(np.int32).ravel()


def pack_parameters(layer: Depthwise, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Per channel: the bias and the epilogue's words; flat int32, behind the trip count of the inner loop."""
    start = layer.epilogue.gain * bias.astype(np.int32)
    rows = np.concatenate([start[None], layer.epilogue.parameters(multiplier, shift)])
    head = np.array([-(-layer.out_width // 2) if layer.out_width % 2 == 0 else layer.out_width // 2, 0], np.int32)
    return np.concatenate([head, np.ascontiguousarray(rows.T).ravel()])


def depthwise_3x3(layer: Depthwise) -> tirx.PrimFunc:
    """The function of (input, weights, parameters, output), all flat."""
    H, W, C, OH, OW = layer.height, layer.width, layer.channels, layer.out_height, layer.out_width
    S, PT, PL, R, RH = layer.stride, layer.top, layer.left, layer.band, layer.rows
    ep, NW = layer.epilogue, layer.row_words
    BANDS = -(-OH // R)
    PLANE = RH * NW
    QW = 1 + ep.words
    ODD = OW % 2 == 1
    ZERO = (layer.input_zero_point & 0xFFFF) * 0x10001
    # Words [FIRST, LAST) of a row lie wholly inside the input; LAST may straddle its right edge.
    FIRST = 1 if PL else 0
    LAST = min((W + PL) // 2, NW)
    STRADDLE = LAST < NW and (W + PL) % 2 == 1
    HAS_LEFT = PL == 1
    CLEAR = LAST + (1 if STRADDLE else 0)
    HAS_CLEAR = NW > CLEAR
    STRIDE1 = S == 1
    step = 1 if S == 1 else 2

    def columns(q):
        """Pairs of outputs in a row: unrolled when few; otherwise from memory, so that LLVM does not know how many."""
        return T.unroll(OW // 2) if OW // 2 <= 3 else T.serial(q[0])

    def first_row(band):
        return T.min(band * R, OH - R)

    def pixel(x, y, column, c):
        return load_word(x, (y * W + column) * C + c * 4)

    def output(ep_q, ch, acc):
        return ep.apply(acc, [ep_q[2 + ch * QW + 1 + i] for i in range(ep.words)])

    @T.prim_func(s_tir=True)
    def depthwise(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((C * 6,), "int32"),
        q: T.Buffer((2 + C * QW,), "int32"),
        out: T.Buffer((OH * OW * C,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        planes = T.alloc_buffer((4 * PLANE,), "int32")
        acc = T.alloc_buffer((2,), "int32")
        for c in range(C // 4):
            for band in range(BANDS):
                for r in range(RH):
                    if T.And(first_row(band) * S + r - PT >= 0, first_row(band) * S + r - PT < H):
                        if HAS_LEFT:
                            planes[r * NW] = pack_bottoms(ZERO, even_bytes(pixel(x, first_row(band) * S + r - PT, 0, c)))
                            planes[PLANE + r * NW] = pack_bottoms(
                                ZERO, odd_bytes(pixel(x, first_row(band) * S + r - PT, 0, c))
                            )
                            planes[2 * PLANE + r * NW] = pack_tops(
                                ZERO, even_bytes(pixel(x, first_row(band) * S + r - PT, 0, c))
                            )
                            planes[3 * PLANE + r * NW] = pack_tops(
                                ZERO, odd_bytes(pixel(x, first_row(band) * S + r - PT, 0, c))
                            )
                        for j in range(LAST - FIRST):
                            planes[r * NW + j + FIRST] = pack_bottoms(
                                even_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL, c)),
                                even_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL + 1, c)),
                            )
                            planes[2 * PLANE + r * NW + j + FIRST] = pack_tops(
                                even_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL, c)),
                                even_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL + 1, c)),
                            )
                            planes[PLANE + r * NW + j + FIRST] = pack_bottoms(
                                odd_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL, c)),
                                odd_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL + 1, c)),
                            )
                            planes[3 * PLANE + r * NW + j + FIRST] = pack_tops(
                                odd_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL, c)),
                                odd_bytes(pixel(x, first_row(band) * S + r - PT, 2 * (j + FIRST) - PL + 1, c)),
                            )
                        if STRADDLE:
                            planes[r * NW + LAST] = pack_bottoms(
                                even_bytes(pixel(x, first_row(band) * S + r - PT, W - 1, c)), ZERO
                            )
                            planes[PLANE + r * NW + LAST] = pack_bottoms(
                                odd_bytes(pixel(x, first_row(band) * S + r - PT, W - 1, c)), ZERO
                            )
                            planes[2 * PLANE + r * NW + LAST] = pack_tops(
                                even_bytes(pixel(x, first_row(band) * S + r - PT, W - 1, c)), ZERO
                            )
                            planes[3 * PLANE + r * NW + LAST] = pack_tops(
                                odd_bytes(pixel(x, first_row(band) * S + r - PT, W - 1, c)), ZERO
                            )
                        if HAS_CLEAR:
                            for j in T.unroll(NW - CLEAR):
                                for ch in T.unroll(4):
                                    planes[ch * PLANE + r * NW + CLEAR + j] = i32(ZERO)
                    else:
                        for j in range(NW):
                            for ch in T.unroll(4):
                                planes[ch * PLANE + r * NW + j] = i32(ZERO)
                for ch in range(4):
                    for y in range(R):
                        for j in columns(q):
                            acc[0] = q[2 + (c * 4 + ch) * QW]
                            acc[1] = q[2 + (c * 4 + ch) * QW]
                            for ky in T.unroll(3):
                                acc[0] = smlabt(
                                    planes[ch * PLANE + (y * S + ky) * NW + step * j + 1],
                                    w[(c * 4 + ch) * 6 + ky * 2 + 1],
                                    smlad(
                                        planes[ch * PLANE + (y * S + ky) * NW + step * j],
                                        w[(c * 4 + ch) * 6 + ky * 2],
                                        acc[0],
                                    ),
                                )
                                if STRIDE1:
                                    acc[1] = smlad(
                                        planes[ch * PLANE + (y * S + ky) * NW + j + 1],
                                        w[(c * 4 + ch) * 6 + ky * 2 + 1],
                                        smlatb(
                                            planes[ch * PLANE + (y * S + ky) * NW + j],
                                            w[(c * 4 + ch) * 6 + ky * 2],
                                            acc[1],
                                        ),
                                    )
                                else:
                                    acc[1] = smlabt(
                                        planes[ch * PLANE + (y * S + ky) * NW + 2 * j + 2],
                                        w[(c * 4 + ch) * 6 + ky * 2 + 1],
                                        smlad(
                                            planes[ch * PLANE + (y * S + ky) * NW + 2 * j + 1],
                                            w[(c * 4 + ch) * 6 + ky * 2],
                                            acc[1],
                                        ),
                                    )
                            out[((first_row(band) + y) * OW + 2 * j) * C + c * 4 + ch] = output(q, c * 4 + ch, acc[0])
                            out[((first_row(band) + y) * OW + 2 * j + 1) * C + c * 4 + ch] = output(
                                q, c * 4 + ch, acc[1]
                            )
                        if ODD:
                            acc[0] = q[2 + (c * 4 + ch) * QW]
                            for ky in T.unroll(3):
                                acc[0] = smlabt(
                                    planes[ch * PLANE + (y * S + ky) * NW + OW // 2 * step + 1],
                                    w[(c * 4 + ch) * 6 + ky * 2 + 1],
                                    smlad(
                                        planes[ch * PLANE + (y * S + ky) * NW + OW // 2 * step],
                                        w[(c * 4 + ch) * 6 + ky * 2],
                                        acc[0],
                                    ),
                                )
                            out[((first_row(band) + y) * OW + OW - 1) * C + c * 4 + ch] = output(q, c * 4 + ch, acc[0])

    depthwise = depthwise.with_attr("tvmcompress.workspaces", {"planes": layer.workspace_bytes})
    # With all rows unpacked before any is written, four channels of the output may lie where those of the input lay.
    return depthwise.with_attr("tvmcompress.inplace", 0) if BANDS == 1 and (H, W) == (OH, OW) else depthwise


__all__ = ["Depthwise", "depthwise_3x3", "pack_parameters", "pack_weights"]
