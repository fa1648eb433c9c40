"""3x3 convolutions of stride 1 by Winograd's minimal filtering F(2x2, 3x3) in exact integers, for cores without SDOT.

Four outputs of a square are made from its 4x4 inputs d by 16 products where the definition takes 36 (Lavin and Gray, "Fast
algorithms for convolutional neural networks", 2016). Along one axis, multiplied by two so that there are no fractions:

    m0 = (d0 - d2) * 2 g0             m1 = (d1 + d2) * (g0 + g1 + g2)
    m2 = (d2 - d1) * (g0 - g1 + g2)   m3 = (d3 - d1) * 2 g2
    2 y0 = m0 + m1 + m2               2 y1 = m1 - m2 + m3

Along both, what is multiplied fits halfwords (inputs up to 512, weights up to 1152), sums are exact and four times those of the
definition, so results are the same. SMLAL by element forms four products of halfwords an instruction: sixteen matrix products,
of the transformed inputs of some tiles and the transformed weights.

Transformed weights would take 3.6 times the bytes of int8 ones. They are made in a workspace, before anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR, i32, load_words, splat
from .epilogue import Epilogue
from .neon import high, low, shuffled, smull_halves
from .padded import PaddedRows
from .plan import Plan
from .products import Pairs, Products
from .tiles import edge

# mypy: ignore-errors

SOURCE = "winograd"
"""Of its plans: `pixels` are (1, tiles at a time), and `rows` are two, those of a row of tiles."""

_MOST_CHANNELS = 400
"""Input channels for which every sum, four times too large, fits a word, whatever the order of its terms."""
_MOST_BYTES = 1 << 18
"""Of transformed weights, which should stay in a cache while all tiles are made."""
_MOST_SUMS = 16
_PLACES, _TAPS = 16, 9
_LANES = 8


def winograd_plans(shape: ConvolutionShape, products: Products) -> Iterator[Plan]:
    """The plans that can compute a convolution; none where minimal filtering cannot, or the core multiplies bytes faster."""
    s = shape
    square = s.kernel == (3, 3) and s.strides == (1, 1) and min(s.out_height, s.out_width) >= 2
    if not square or not isinstance(products, Pairs) or s.channels % _LANES or s.channels > _MOST_CHANNELS:
        return
    if 2 * _PLACES * s.channels * s.out_channels > _MOST_BYTES:
        return
    for vectors in (4, 2):
        for tiles in (8, 4, 2, 1):
            if s.out_channels % (4 * vectors) == 0 and tiles <= -(-s.out_width // 2) and tiles * vectors <= _MOST_SUMS:
                yield Plan(SOURCE, (1, tiles), vectors, 2, 1)


def winograd_cost(shape: ConvolutionShape, plan: Plan) -> float:
    """Instructions that a kernel would execute, about: those of its vectors, loads and stores, as measured on some layers."""
    s, (_, tiles), vectors = shape, plan.pixels, plan.vectors
    across, down = -(-s.out_width // 2), -(-s.out_height // 2)
    blocks, groups, deep = s.out_channels // (4 * vectors), -(-across // tiles), s.channels // _LANES
    sums = tiles * vectors
    many = sums > _MOST_SUMS // 2
    # By eight channels: loads of a tile, of weights in pairs, and the products. LLVM takes two rounds of few products apart.
    round_ = tiles + 2 * vectors + 8 * sums + 3
    product = _PLACES * (deep * round_ + sums + (5 if many or deep > 2 else -11))
    output = sums * (80 if many else 70)
    inputs = down * across * deep * 80 + down * 4 * (across + 1) * s.channels / 8
    return s.channels * s.out_channels / _LANES * 75 + inputs + blocks * down * groups * (product + output)


class WinogradKernel:
    """One convolution by one plan: the packed constants and the function.

    Args:
        shape: Of a 3x3 convolution of stride 1, its input channels a multiple of 8, its output channels of 4 `plan.vectors`.
        epilogue: How sums become outputs.
        plan: One of `winograd_plans`.
    """

    def __init__(self, shape: ConvolutionShape, epilogue: Epilogue, plan: Plan) -> None:
        self.shape, self.epilogue, self.plan = shape, epilogue, plan
        self.width = 4 * plan.vectors

    @cached_property
    def band(self) -> PaddedRows:
        """The input rows of a row of tiles; the last tile of a row reads a column more where their number is odd."""
        return PaddedRows(self.shape, self.plan.rows, slack=self.shape.channels + VECTOR)

    @property
    def across(self) -> int:
        """Tiles of a row."""
        return -(-self.shape.out_width // 2)

    @property
    def block_words(self) -> int:
        """Words of the parameters of a block of channels."""
        return self.width * (1 + self.epilogue.words)

    @property
    def workspaces(self) -> dict[str, int]:
        """Bytes of the padded rows, the transformed inputs and weights, and the products of some tiles."""
        s = self.shape
        return {
            "band": self.band.nbytes,
            "fields": 2 * _PLACES * self.across * s.channels,
            "taps": 2 * _PLACES * s.out_channels * s.channels,
            "m": 16 * _PLACES * self.plan.pixels[1] * self.plan.vectors,
        }

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """(O, 3, 3, C) int8 in the order blocks of eight outputs, C, taps, outputs; flat."""
        blocks = weights.reshape(-1, _LANES, _TAPS, weights.shape[3])
        return np.ascontiguousarray(blocks.transpose(0, 3, 2, 1)).ravel()

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The bias, then each word of the epilogue, by block, and the zero point at the end: flat int32."""
        rows = np.concatenate([bias[None].astype(np.int32), self.epilogue.parameters(multiplier, shift)])
        blocks = [rows[:, start : start + self.width].ravel() for start in range(0, rows.shape[1], self.width)]
        return np.concatenate([*blocks, self.epilogue.tail])


def _halfwords(buffer: tirx.Buffer, at: tirx.PrimExpr, lanes: int = _LANES) -> tirx.PrimExpr:
    return buffer.vload([at], f"int16x{lanes}")


def _of_inputs(d: list[tirx.PrimExpr]) -> list[tirx.PrimExpr]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]


def _of_weights(g: list[tirx.PrimExpr]) -> list[tirx.PrimExpr]:
    ends = g[0] + g[2]
    return [g[0] + g[0], ends + g[1], ends - g[1], g[2] + g[2]]


def _of_products(m: list[tirx.PrimExpr]) -> list[tirx.PrimExpr]:
    return [m[0] + m[1] + m[2], m[1] - m[2] + m[3]]


def _transform(by_axis, kept: tirx.Buffer, values: list[list[tirx.PrimExpr]]) -> list[list[tirx.PrimExpr]]:
    """Transform each row of values, keep what comes out, and transform its columns."""
    rows = [by_axis(row) for row in values]
    width = len(rows[0])
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            T.buffer_store(kept, value, [i * width + j])
    columns = [by_axis([kept[i * width + j] for i in range(len(rows))]) for j in range(width)]
    return [list(row) for row in zip(*columns)]


def winograd(k: WinogradKernel) -> tirx.PrimFunc:
    """The function of (input, weights, parameters, output), all flat."""
    s, plan, ep = k.shape, k.plan, k.epilogue
    C, CO, OH, OW = s.channels, s.out_channels, s.out_height, s.out_width
    TILES, V = plan.pixels[1], plan.vectors
    ACROSS, DOWN, C8, BLOCKS = k.across, -(-OH // 2), C // _LANES, CO // k.width
    PLANE, MATRIX = ACROSS * C, CO * C
    INPUT, OUTPUT = s.height * s.width * C, OH * OW * CO
    PARAMETERS = BLOCKS * k.block_words + len(ep.tail)
    SPACE = k.workspaces

    def store(buffer, value, at, lanes=_LANES):
        T.buffer_store(buffer, value, [tirx.Ramp(at, i32(1), lanes)])

    def transform_weights(w, kept, taps, block, c):
        at = (block * C + c) * (_TAPS * _LANES)
        g = [[w.vload([at + (3 * i + j) * _LANES], "int8x8").astype("int16x8") for j in range(3)] for i in range(3)]
        for i, row in enumerate(_transform(_of_weights, kept, g)):
            for j, value in enumerate(row):
                store(taps, value, (4 * i + j) * MATRIX + (block * C + c) * _LANES)

    def transform_inputs(band, kept, fields, tile, c):
        at = 2 * tile * C + c * _LANES
        d = [[band.vload([at + i * k.band.pitch + j * C], "int8x8").astype("int16x8") for j in range(4)] for i in range(4)]
        for i, values in enumerate(_transform(_of_inputs, kept, d)):
            for j, value in enumerate(values):
                store(fields, value, (4 * i + j) * PLANE + tile * C + c * _LANES)

    def accumulate(acc, fields, taps, p, n, first, c):
        """Eight input channels of a place's product."""
        data = [_halfwords(fields, p * PLANE + (first + t) * C + c * _LANES) for t in range(TILES)]
        for lane in range(_LANES):
            for half in range(V // 2):
                at = p * MATRIX + ((n * (V // 2) + half) * C + c * _LANES + lane) * _LANES
                both = _halfwords(taps, at)
                for side, part in enumerate((low, high)):
                    for t, x in enumerate(data):
                        place = t * V + 2 * half + side
                        product = smull_halves(part(both, 4), shuffled([x], [lane] * 4))
                        T.buffer_store(acc, acc[place] + product, [place])

    def finish(m, q, kept, result, t, n):
        """The four outputs of a tile, by vectors of channels, before their zero point."""
        for v in range(V):
            words = [load_words(q, n * k.block_words + (i * V + v) * 4) for i in range(1 + ep.words)]
            made = [[load_words(m, ((4 * i + j) * TILES * V + t * V + v) * 4) for j in range(4)] for i in range(4)]
            for i, row in enumerate(_transform(_of_products, kept, made)):
                for j, value in enumerate(row):
                    T.buffer_store(result, ep.scaled((value >> splat(2)) + words[0], words[1:]), [(2 * i + j) * V + v])

    def write(q, out, result, line, column, n):
        zero = ep.zero(q, BLOCKS * k.block_words)
        for i in range(2):
            for j in range(2):
                value = ep.bytes([result[(2 * i + j) * V + v] for v in range(V)], zero)
                with T.If(T.And(line + i < OH, column + j < OW)), T.Then():
                    store(out, value, ((line + i) * OW + column + j) * CO + n * k.width, k.width)

    @T.prim_func(s_tir=True)
    def conv(
        x: T.Buffer((INPUT,), "int8"),
        w: T.Buffer((CO * _TAPS * C,), "int8"),
        q: T.Buffer((PARAMETERS,), "int32"),
        out: T.Buffer((OUTPUT,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        band = T.alloc_buffer((SPACE["band"],), "int8")
        fields = T.alloc_buffer((SPACE["fields"] // 2,), "int16")
        taps = T.alloc_buffer((SPACE["taps"] // 2,), "int16")
        m = T.alloc_buffer((SPACE["m"] // 4,), "int32")
        halves = T.alloc_buffer((_PLACES,), "int16x8", scope="local")
        acc = T.alloc_buffer((TILES * V,), "int32x4", scope="local")
        sums = T.alloc_buffer((8,), "int32x4", scope="local")
        result = T.alloc_buffer((4 * V,), "int32x4", scope="local")
        for block in range(CO // _LANES):
            for c in range(C):
                transform_weights(w, halves, taps, block, c)
        for row in range(DOWN):
            k.band.fill(x, band, 2 * row)
            for tile in range(ACROSS):
                for c in range(C8):
                    transform_inputs(band, halves, fields, tile, c)
            for n in range(BLOCKS):
                for group in range(-(-ACROSS // TILES)):
                    for p in range(_PLACES):
                        for i in T.unroll(TILES * V):
                            acc[i] = splat(0)
                        for c in range(C8):
                            accumulate(acc, fields, taps, p, n, edge(group, TILES, ACROSS), c)
                        for i in T.unroll(TILES * V):
                            m[T.ramp((p * TILES * V + i) * 4, 1, 4)] = acc[i]
                    for t in range(TILES):
                        finish(m, q, sums, result, t, n)
                        write(q, out, result, 2 * row, 2 * (edge(group, TILES, ACROSS) + t), n)

    return conv.with_attr("tvmcompress.workspaces", SPACE)
