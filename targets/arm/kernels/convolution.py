"""Convolution, pointwise convolution and layers over tokens, by tiles of pixels and channels held in registers.

The columns and channels of a kernel's row lie next to one another in NHWC, so a receptive field is read in runs of bytes, and
the input's zero point goes into the bias, so that borders hold it. Where fields are read from depends on the layer:

- *direct*: a 1x1 kernel without padding reads the input as it lies;
- *band*: the input rows of some output rows are copied with their padding;
- *columns*: where runs are short, the fields of those output rows are copied from the band, the runs of each one behind the
  other.

What is read beyond a run is multiplied by zero. The last tile of a row, and of the channels, overlaps the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR, i32, load_words
from .epilogue import Epilogue
from .neon import joined, shuffled
from .padded import PaddedRows
from .products import Products

# mypy: ignore-errors


@dataclass(frozen=True)
class Plan:
    """The choices of the template.

    Attributes:
        source: "direct", "band" or "columns".
        pixels: Of a tile: rows, columns.
        vectors: Of four output channels in a tile.
        rows: Output rows made from one band.
        unroll: Steps of 16 bytes in one round of the inner loop.
    """

    source: str
    pixels: tuple[int, int]
    vectors: int
    rows: int
    unroll: int


@dataclass(frozen=True)
class Phase:
    """A loop over a run.

    Attributes:
        rounds: Its trip count.
        stride: Bytes from one round to the next.
        steps: Offset and size of the steps of a round.
    """

    rounds: int
    stride: int
    steps: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of a channel's weights in one round."""
        return sum(size for _, size in self.steps)


class ConvolutionKernel:
    """One convolution by one plan: the packed constants and the function."""

    def __init__(self, shape: ConvolutionShape, epilogue: Epilogue, products: Products, plan: Plan) -> None:
        self.shape, self.epilogue, self.products, self.plan = shape, epilogue, products, plan

    @cached_property
    def flat(self) -> bool:
        """Whether pixels lie at one distance, whatever their row."""
        return self.plan.source == "columns" or (self.plan.source == "direct" and self.shape.strides == (1, 1))

    @cached_property
    def run(self) -> int:
        """Bytes of a run that are multiplied."""
        s = self.shape
        run = s.kernel[1] * s.channels
        return run * s.kernel[0] if self.plan.source == "columns" else run

    @cached_property
    def runs(self) -> int:
        """Runs of a field."""
        return 1 if self.plan.source == "columns" else self.shape.kernel[0]

    @cached_property
    def field(self) -> int:
        """Bytes from a field to the next one in the columns."""
        return -(-self.run // 8) * 8

    @cached_property
    def band(self) -> PaddedRows:
        """The band."""
        return PaddedRows(self.shape, self.plan.rows)

    @cached_property
    def columns_bytes(self) -> int:
        """Bytes of the columns."""
        return -(-(self.plan.rows * self.shape.out_width * self.field + 2 * VECTOR) // VECTOR) * VECTOR

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The loops that take a run."""
        channels, width = self.shape.channels, self.shape.kernel[1]
        deep = channels > VECTOR and channels % VECTOR == 0
        if self.plan.source == "band" and deep and 1 < width <= 2 * self.plan.unroll:
            # The columns of a kernel share what they read.
            return (Phase(channels // VECTOR, VECTOR, tuple((x * channels, VECTOR) for x in range(width))),)
        whole, done, found = self.run // VECTOR, 0, []
        for unroll in (self.plan.unroll, whole % self.plan.unroll):
            rounds = whole // unroll if unroll else 0
            if rounds:
                found.append(Phase(rounds, unroll * VECTOR, tuple((done + i * VECTOR, VECTOR) for i in range(unroll))))
            done += rounds * unroll * VECTOR
            whole -= rounds * unroll
        if self.run > done:
            granule = self.products.granule
            rest = -(-(self.run - done) // granule) * granule
            tail = ((done, rest),) if rest != 12 or self.plan.source != "direct" else ((done, 8), (done + 8, 4))
            if found and found[-1].rounds == 1:
                last = found.pop()
                tail = (*last.steps, *tail)
            found.append(Phase(1, 0, tail))
        return tuple(found)

    @cached_property
    def starts(self) -> list[int]:
        """The first channel of each block; the last ones may overlap."""
        width, outputs = 4 * self.plan.vectors, self.shape.out_channels
        return [min(start, max(outputs - width, 0)) for start in range(0, outputs, width)]

    @cached_property
    def block_bytes(self) -> int:
        """Bytes of the weights of a block."""
        return self.runs * sum(phase.rounds * phase.nbytes for phase in self.phases) * 4 * self.plan.vectors

    @cached_property
    def block_words(self) -> int:
        """Words of the parameters of a block."""
        return 4 * self.plan.vectors * (1 + self.epilogue.words)

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """(O, KH, KW, C) int8 as they are read: flat int8."""
        width = 4 * self.plan.vectors
        rows = weights.reshape(len(weights), self.runs, self.run)
        reach = max(phase.stride * (phase.rounds - 1) + max(at + size for at, size in phase.steps) for phase in self.phases)
        padded = np.zeros((max(len(rows), width), self.runs, max(reach, self.run)), np.int8)
        padded[: len(rows), :, : self.run] = rows
        parts = []
        for start in self.starts:
            for r in range(self.runs):
                for phase in self.phases:
                    for i in range(phase.rounds):
                        for at, size in phase.steps:
                            place = i * phase.stride + at
                            parts.append(self.products.pack(padded[start : start + width, r, place : place + size]))
        return np.concatenate(parts)

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The biases, then each word of the epilogue, by block: flat int32."""
        width = 4 * self.plan.vectors
        rows = np.concatenate([bias[None].astype(np.int32), self.epilogue.parameters(multiplier, shift)])
        rows = np.pad(rows, ((0, 0), (0, max(0, width - rows.shape[1]))))
        return np.concatenate([rows[:, start : start + width].ravel() for start in self.starts])

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, output), all flat."""
        return _build(self)


def _build(k: ConvolutionKernel) -> tirx.PrimFunc:
    s, plan, ep, products = k.shape, k.plan, k.epilogue, k.products
    H, W, C, OH, OW, CO = s.height, s.width, s.channels, s.out_height, s.out_width, s.out_channels
    (SH, SW), (TR, TC), NV = s.strides, plan.pixels, plan.vectors
    COLUMNS, DIRECT, FLAT = plan.source == "columns", plan.source == "direct", k.flat
    ROWS = OH if DIRECT else plan.rows
    BANDS = -(-OH // ROWS)
    NB, WIDTH = len(k.starts), 4 * NV
    # Pixels of a walk, and walks of a band.
    M, LINES = (ROWS * OW, 1) if FLAT else (OW, ROWS)
    PITCH = W * C if DIRECT else k.band.pitch
    STEP = k.field if COLUMNS else SW * C
    PIXELS = TR * TC
    SUMS = products.sums(PIXELS, NV)
    WTOTAL, PTOTAL = NB * k.block_bytes, NB * k.block_words
    OTOTAL = max(OH * OW * CO, 1)
    LOADED = min(WIDTH, CO)

    def edge(index, tile, extent):
        """The first of `tile` places, the last ones overlapping those before."""
        return index * tile if extent % tile == 0 else T.min(index * tile, extent - tile)

    def load(buffer, at, size):
        """int8x16 of which the first `size` bytes count."""
        if size > 8:
            return buffer.vload([at], "int8x16")
        if size == 8:
            half = buffer.vload([at], "int8x8")
            return joined(half, half, 8)
        word = buffer.vload([at], "int8x4")
        return shuffled([word] * 4, range(VECTOR))

    def accumulate(source, w, acc, at, block, done, phase, i):
        """One round of a phase."""
        place = block + (done + i * phase.nbytes) * WIDTH
        for offset, size in phase.steps:
            places = [i * phase.stride + offset + (p // TC) * SH * PITCH + p % TC * STEP for p in range(PIXELS)]
            data = [load(source, at + inside, size) for inside in places]
            loads = [w.vload([place + j * VECTOR], "int8x16") for j in range(size * WIDTH // VECTOR)]
            products.step(acc, data, loads, size)
            place += size * WIDTH

    def finish(q, acc, result, block):
        words = [[load_words(q, block + (i * NV + v) * 4) for i in range(1 + ep.words)] for v in range(NV)]
        sums = products.finish([acc[j] for j in range(SUMS)], PIXELS, NV)
        for index, total in enumerate(sums):
            bias, *factors = words[index % NV]
            T.buffer_store(result, ep.scaled(total if products.by_channel else total + bias, factors), [index])

    def store(out, result, line, column, channel):
        """Stores the tile whose first pixel is (line, column)."""
        # Where a tile has all channels, its pixels lie behind one another.
        together = CO == WIDTH
        length = TC * NV if together else NV
        values = [result[i] for i in range(PIXELS * NV)]
        runs = [values[i : i + length] for i in range(0, len(values), length)]
        for index, run in enumerate(runs):
            line_at = line + (index if together else index // TC)
            column_at = column if together else column + index % TC
            place = (line_at * OW + column_at) * CO + channel
            while run:
                count = 4 if len(run) >= 4 else 2 if len(run) >= 2 else 1
                part, run = run[:count], run[count:]
                value = ep.bytes(part)
                if LOADED < WIDTH:
                    store_lanes(out, value, place, count)
                else:
                    T.buffer_store(out, value, [tirx.Ramp(place, i32(1), 4 * count)])
                place = place + 4 * count

    def store_lanes(out, value, place, count):
        """Less than a block of channels; they start at channel 0."""
        for j in range(4 * count):
            with T.If(j < LOADED), T.Then():
                T.buffer_store(out, tirx.Shuffle([value], [i32(j)]), [place + j])

    def copy_columns(band, panel):
        row = s.kernel[1] * C
        with T.serial(ROWS) as line, T.serial(OW) as p:
            for ky in range(s.kernel[0]):
                for v in range(-(-row // VECTOR)):
                    start = (line * SH + ky) * PITCH + p * (SW * C) + v * VECTOR
                    at = (line * OW + p) * k.field + ky * row + v * VECTOR
                    left = row - v * VECTOR
                    lanes = VECTOR if left > 8 else 8 if left > 4 else 4
                    T.buffer_store(panel, band.vload([start], f"int8x{lanes}"), [tirx.Ramp(at, i32(1), lanes)])

    def tile(source, w, q, out, acc, result, n, at, line, column):
        for j in range(SUMS):
            bias = load_words(q, n * k.block_words + j % NV * 4) if products.by_channel else tirx.Broadcast(i32(0), 4)
            T.buffer_store(acc, bias, [j])
        size = sum(phase.rounds * phase.nbytes for phase in k.phases)
        if k.runs == 1:
            run(source, w, acc, at, n * k.block_bytes)
        else:
            with T.serial(k.runs) as r:
                run(source, w, acc, at + r * PITCH, n * k.block_bytes + r * (size * WIDTH))
        finish(q, acc, result, n * k.block_words)
        channel = T.min(n * WIDTH, CO - WIDTH) if CO % WIDTH and CO > WIDTH else n * WIDTH
        store(out, result, line, column, channel)

    def run(source, w, acc, at, block):
        done = 0
        for phase in k.phases:
            if phase.rounds == 1:
                accumulate(source, w, acc, at, block, done, phase, 0)
            else:
                with T.serial(phase.rounds) as i:
                    accumulate(source, w, acc, at, block, done, phase, i)
            done += phase.rounds * phase.nbytes

    def walk(source, w, q, out, acc, result, start):
        """The tiles of a band whose first output row is `start`."""
        with T.serial(NB) as n, T.serial(-(-LINES // TR)) as line_block, T.serial(-(-M // TC)) as column_block:
            line, column = edge(line_block, TR, LINES), edge(column_block, TC, M)
            tile(source, w, q, out, acc, result, n, line * (SH * PITCH) + column * STEP, start + line, column)

    @T.prim_func(s_tir=True)
    def conv(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((WTOTAL,), "int8"),
        q: T.Buffer((PTOTAL,), "int32"),
        out: T.Buffer((OTOTAL,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        band = T.alloc_buffer((VECTOR if DIRECT else k.band.nbytes,), "int8")
        panel = T.alloc_buffer((k.columns_bytes if COLUMNS else VECTOR,), "int8")
        # Of another scope than the workspaces, lest TVM lets them share memory, which it cannot do with vectors.
        acc = T.alloc_buffer((SUMS,), "int32x4", scope="local")
        result = T.alloc_buffer((PIXELS * NV,), "int32x4", scope="local")
        for b in range(BANDS):
            if not DIRECT:
                k.band.fill(x, band, edge(b, ROWS, OH))
            if COLUMNS:
                copy_columns(band, panel)
            walk(panel if COLUMNS else x if DIRECT else band, w, q, out, acc, result, edge(b, ROWS, OH))

    workspaces = {} if DIRECT else {"band": k.band.nbytes}
    if COLUMNS:
        workspaces["panel"] = k.columns_bytes
    return conv.with_attr("tvmcompress.workspaces", workspaces or {"": 0})
