"""Depthwise 3x3 convolution for cores with the DSP extension.

Channels lie side by side in memory, but a depthwise kernel multiplies along rows. Four channels at a time, a band of input
rows is therefore unpacked into planes: for each channel rows of halfword pairs, padded with the zero point. On the planes
one SMLAD multiplies two horizontal neighbours, and up to six outputs of a row are made at a time:

    weights of a kernel row: (w0, w1), (w1, w2)
    stride 1, words a = (x0, x1), b = (x2, x3):   y0 = a * (w0, w1) + x2 * w2      y1 = x1 * w0 + b * (w1, w2)
    stride 2, words a, b, c = (x4, x5):           y0 = a * (w0, w1) + x2 * w2      y1 = b * (w0, w1) + x4 * w2

A row of weights is one word in flash, the bytes w0, w1, w1, w2: SXTB16 of it and of its rotation gives both pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.vectors import i32
from .epilogue import Epilogue
from .routines import depthwise_routine
from .words import even_bytes, hidden_zero, load_word, odd_bytes, pack_bottoms, pack_tops, sadd16, smlabt, smlad, smlatb

# mypy: ignore-errors

LARGEST_TILE = 6
_HEAD = 4


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
        columns: Outputs of a row that are made at a time, see `tile`; 0 leaves it to a formula.
        routine: Whether a routine makes the outputs, see `routines`; tiles then divide the rows.
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
    columns: int = 0
    routine: bool = False

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
    def tile(self) -> int:
        """Outputs of a row that are made at a time, even if there are several tiles; a smaller tile may follow the last."""
        if self.columns:
            return self.columns
        if self.out_width <= LARGEST_TILE:
            return self.out_width
        return max(range(2, LARGEST_TILE + 1, 2), key=lambda n: (self.out_width % n == 0, n))

    @property
    def inner_words(self) -> int:
        """Words of an unpacked row that lie wholly inside the input."""
        return min((self.width + self.left) // 2, self.row_words) - self.left

    @property
    def workspace_bytes(self) -> int:
        """Bytes of the unpacked band."""
        return 16 * self.rows * self.row_words


def pack_constants(
    layer: Depthwise, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray
) -> list[np.ndarray]:
    """What the function reads, flat int32: (3, 3, C) int8 weights, and what the epilogue needs, from (C,) int32 each."""
    words, parameters = pack_weights(weights), pack_parameters(layer, bias, multiplier, shift)
    if not layer.routine:
        return [words, parameters]
    stream = np.concatenate([words.reshape(layer.channels, -1), parameters[_HEAD:].reshape(layer.channels, -1)], axis=1)
    pitch, row = 4 * layer.row_words, layer.out_width * layer.channels
    skipped = layer.stride * pitch - 2 * layer.out_width * layer.stride
    sizes = [pitch, layer.rows * pitch, layer.channels, layer.epilogue.zero_point, layer.band * row, row, skipped]
    return [stream.ravel(), np.array([*parameters[:_HEAD], *sizes], np.int32)]


def pack_weights(weights: np.ndarray) -> np.ndarray:
    """(3, 3, C) int8 as one word a kernel row and channel, flat int32 in the order channel, row."""
    rows = weights.astype(np.int8).transpose(2, 0, 1)[..., [0, 1, 1, 2]]
    return np.ascontiguousarray(rows).view(np.int32).ravel()


def pack_parameters(layer: Depthwise, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Per channel: the bias and the epilogue's words; flat int32, behind the trip counts of loops not to be unrolled."""
    start = layer.epilogue.gain * bias.astype(np.int32)
    rows = np.concatenate([start[None], layer.epilogue.parameters(multiplier, shift)])
    head = np.array([layer.out_width // layer.tile, layer.band, layer.inner_words, 0], np.int32)
    return np.concatenate([head, np.ascontiguousarray(rows.T).ravel()])


def depthwise_3x3(layer: Depthwise) -> tirx.PrimFunc:
    """The function of (input, weights, parameters, output), all flat."""
    H, W, C, OH, OW = layer.height, layer.width, layer.channels, layer.out_height, layer.out_width
    S, PT, PL, R, RH = layer.stride, layer.top, layer.left, layer.band, layer.rows
    ep, NW = layer.epilogue, layer.row_words
    BANDS = -(-OH // R)
    PLANE = RH * NW
    QW = 1 + ep.words
    TILE, REST, HEAD = layer.tile, OW % layer.tile, _HEAD
    ZERO = (layer.input_zero_point & 0xFFFF) * 0x10001
    # Words [FIRST, LAST) of a row lie wholly inside the input; LAST may straddle its right edge.
    FIRST = 1 if PL else 0
    LAST = min((W + PL) // 2, NW)
    STRADDLE = LAST < NW and (W + PL) % 2 == 1
    HAS_LEFT = PL == 1
    CLEAR = LAST + (1 if STRADDLE else 0)
    HAS_CLEAR = NW > CLEAR
    STRIDE1 = S == 1
    ROUTINE = layer.routine
    WW = 3 + QW if ROUTINE else 3
    QN = HEAD + (7 if ROUTINE else C * QW)
    name = depthwise_routine(S, ep, TILE, OW // TILE) if ROUTINE else ""

    def multiply(planes, w, q, out, c, band):
        """The call of the routine."""
        places = ((planes, 0), (w, c * 4 * WW), (out, first_row(band) * OW * C + c * 4), (q, HEAD))
        return T.evaluate(T.call_extern("int32", name, *(T.address_of(buffer[place]) for buffer, place in places)))

    def inner(q):
        """Words that lie wholly inside: unrolled when few; otherwise from memory, so that LLVM does not unroll them."""
        return T.unroll(LAST - FIRST) if LAST - FIRST <= 4 else T.serial(q[2])

    def first_row(band):
        return T.min(band * R, OH - R)

    def pixel(x, y, column, c):
        return load_word(x, (y * W + column) * C + c * 4)

    def gained(pair):
        return sadd16(pair, pair) if ep.gain == 2 else pair

    @T.inline
    def tile(q, planes, taps, acc, out, start, channel, place, same, width):
        """`width` outputs whose fields start at a word and which start at a place; `same` is a hidden zero."""
        for i in T.unroll(width):
            acc[i] = q[HEAD + channel * QW + same]
        for ky in T.unroll(3):
            for i in T.unroll(width):
                if STRIDE1:
                    if i % 2 == 0:
                        acc[i] = smlabt(
                            planes[start + ky * NW + i // 2 + 1],
                            taps[same + ky * 3 + 1],
                            smlad(planes[start + ky * NW + i // 2], taps[same + ky * 3], acc[i]),
                        )
                    else:
                        acc[i] = smlad(
                            planes[start + ky * NW + i // 2 + 1],
                            taps[same + ky * 3 + 1],
                            smlatb(planes[start + ky * NW + i // 2], taps[same + ky * 3], acc[i]),
                        )
                else:
                    acc[i] = smlabt(
                        planes[start + ky * NW + i + 1],
                        taps[same + ky * 3 + 1],
                        smlad(planes[start + ky * NW + i], taps[same + ky * 3], acc[i]),
                    )
        for i in T.unroll(width):
            out[place + i * C] = ep.apply(acc[i], [q[HEAD + channel * QW + 1 + same + word] for word in range(ep.words)])

    @T.prim_func(s_tir=True)
    def depthwise(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((C * WW,), "int32"),
        q: T.Buffer((QN,), "int32"),
        out: T.Buffer((OH * OW * C,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        planes = T.alloc_buffer((4 * PLANE,), "int32")
        acc = T.alloc_buffer((TILE,), "int32")
        taps = T.alloc_buffer((9,), "int32")
        for c in range(C // 4):
            for band in range(BANDS):
                for r in range(RH):
                    if T.And(first_row(band) * S + r - PT >= 0, first_row(band) * S + r - PT < H):
                        if HAS_LEFT:
                            planes[r * NW] = pack_bottoms(ZERO, even_bytes(pixel(x, first_row(band) * S + r - PT, 0, c)))
                            planes[PLANE + r * NW] = pack_bottoms(ZERO, odd_bytes(pixel(x, first_row(band) * S + r - PT, 0, c)))
                            planes[2 * PLANE + r * NW] = pack_tops(
                                ZERO, even_bytes(pixel(x, first_row(band) * S + r - PT, 0, c))
                            )
                            planes[3 * PLANE + r * NW] = pack_tops(
                                ZERO, odd_bytes(pixel(x, first_row(band) * S + r - PT, 0, c))
                            )
                        for j in inner(q):
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
                if ROUTINE:
                    multiply(planes, w, q, out, c, band)
                else:
                    for ch in range(4):
                        for ky in T.unroll(3):
                            taps[ky * 3] = gained(even_bytes(w[(c * 4 + ch) * 3 + ky]))
                            taps[ky * 3 + 1] = gained(odd_bytes(w[(c * 4 + ch) * 3 + ky]))
                        for y in range(q[1]):
                            for j in range(q[0] if OW > TILE else 1):
                                tile(
                                    q, planes, taps, acc, out,
                                    ch * PLANE + y * S * NW + j * (TILE * S // 2),
                                    c * 4 + ch,
                                    ((first_row(band) + y) * OW + j * TILE) * C + c * 4 + ch,
                                    hidden_zero(j if OW > TILE else y),
                                    TILE,
                                )  # fmt: skip
                            if REST > 0:
                                tile(
                                    q, planes, taps, acc, out,
                                    ch * PLANE + y * S * NW + (OW - REST) * S // 2,
                                    c * 4 + ch,
                                    ((first_row(band) + y) * OW + OW - REST) * C + c * 4 + ch,
                                    hidden_zero(y),
                                    REST,
                                )  # fmt: skip

    depthwise = depthwise.with_attr("tvmcompress.workspaces", {"planes": layer.workspace_bytes})
    # With all rows unpacked before any is written, four channels of the output may lie where those of the input lay.
    return depthwise.with_attr("tvmcompress.inplace", 0) if BANDS == 1 and (H, W) == (OH, OW) else depthwise


__all__ = ["Depthwise", "depthwise_3x3", "pack_constants"]
