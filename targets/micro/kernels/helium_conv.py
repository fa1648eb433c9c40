"""Convolution and pointwise convolution with Helium.

VMLADAVA multiplies sixteen bytes by sixteen bytes and adds all products to a general register, so weights and
activations stay bytes, and a receptive field is read in runs: the columns and channels of a kernel's row lie next to one
another in NHWC. Two pixels by four output channels are made at a time; their eight sums take all the registers that
VMLADAVA can add to, and six loads serve eight multiplications. Four pixels by two channels take as many loads, but where a
vector of one pixel is one of its neighbour's too, it is loaded once. The input's zero point goes into the bias, so borders hold
it. Where fields are read from depends on the layer:

- *direct*: a 1x1 kernel without padding reads the input as it lies; a pixel's last vector may overlap the one before;
- *paired*: the same for eight channels, where one vector holds both pixels;
- *band*: the input rows of some output rows are copied to a padded band;
- *columns*: where runs are much shorter than a vector, the fields of a band's outputs are copied from it, the rows of
  each one behind the other.

What vectors read beyond a run is multiplied by zero.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ...kernels.band import HEAD, Band
from ...kernels.vectors import VECTOR, as_bytes, i32, load_run, load_words, splat
from .helium_add import HeliumSum
from .helium_conv_shape import HeliumConvolution, HeliumPlan
from .helium_epilogue import block_parameters
from .helium_words import gather_bytes, scatter_bytes, vector, vmladava, vrshl

# mypy: ignore-errors


_STAGED_BYTES = 128
"""Of the fields of two pixels that are kept on the stack."""


class HeliumKernel:
    """One convolution by one plan: the packed constants and the function.

    With `residual` the convolution's output is the first operand of a sum, whose second one is a tensor of the output's
    shape; the result may lie where that tensor lies.
    """

    def __init__(self, conv: HeliumConvolution, plan: HeliumPlan, residual: HeliumSum | None = None) -> None:
        self.conv, self.plan, self.residual = conv, plan, residual

    @cached_property
    def runs(self) -> int:
        """Runs of a receptive field, as it is read."""
        return self.conv.kernel[0] if self.plan.source == "band" else 1

    @cached_property
    def run(self) -> int:
        """Bytes of a run, as it is read."""
        c = self.conv
        return -(-c.kernel[0] * c.run // VECTOR) * VECTOR if self.plan.source == "columns" else c.run

    @cached_property
    def chunks(self) -> int:
        """Rounds of the inner loop in a run."""
        return -(-self.run // (VECTOR * self.plan.unroll))

    @cached_property
    def rounds(self) -> int:
        """Rounds of the loop over a field's runs."""
        return self.runs // self.plan.runs

    @property
    def peeled(self) -> int:
        """Rounds before that loop: one starts the sums instead of zeros."""
        return int(self.rounds > 1 and self.chunks == 1)

    @cached_property
    def span(self) -> int:
        """Bytes that the vectors of a run read."""
        return self.chunks * self.plan.unroll * VECTOR

    @cached_property
    def band(self) -> Band:
        """The band, with room for what vectors read behind it."""
        return self.conv.band(self.plan.rows, max(self.span - self.run, VECTOR))

    @property
    def panel_bytes(self) -> int:
        """Bytes of the columns. What vectors write behind a field the next one overwrites; the last needs room."""
        return self.plan.rows * self.conv.out_width * self.run + max(self.span - self.run, VECTOR)

    @property
    def channels(self) -> int:
        """Output channels of a block."""
        return 8 // self.plan.pixels

    @property
    def blocks(self) -> int:
        """Blocks of output channels."""
        return -(-self.conv.out_channels // self.channels)

    @property
    def order(self) -> list[int]:
        """The vectors of a round, those that neighbours share one after the other."""
        columns = self.conv.channels // VECTOR
        shared = self.plan.pixels == 4 and self.conv.channels % VECTOR == 0 and self.plan.unroll % max(columns, 1) == 0
        return sorted(range(self.plan.unroll), key=lambda v: v % columns) if shared else list(range(self.plan.unroll))

    @property
    def sides(self) -> int:
        """Sets of weights: one for each of two pixels where they share vectors."""
        return 2 if self.plan.source == "paired" else 1

    @property
    def weight_words(self) -> int:
        """Words of the weights of a block."""
        return self.runs * self.span * self.sides * self.channels // 4

    @property
    def header(self) -> int:
        """Words before those of the first block."""
        return HEAD + 3 + (self.conv.epilogue.words if self.plan.one_scale else 0)

    @property
    def block_words(self) -> int:
        """Words of the constants of a block."""
        return self.weight_words + self.channels * (1 if self.plan.one_scale else 1 + self.conv.epilogue.words)

    def vector_start(self, index: int) -> int:
        """Offset of a vector in its run; in what is read directly the last one ends where the run ends."""
        direct = self.plan.source == "direct"
        return min(index * VECTOR, self.run - VECTOR) if direct else index * VECTOR

    def constants(self, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Per block of output channels what the epilogue needs, and the weights, vector by vector.

        Args:
            weights: (O, KH, KW, C) int8.
            bias, multiplier, shift: (O,) int32, the input's zero point folded into the bias.

        Returns:
            Flat int32, behind the trip counts of the loops. LLVM would unroll or hoist and spill if it knew them.
        """
        c = self.conv
        rows = weights.reshape(c.out_channels, self.runs, -1)
        count = self.span // VECTOR
        packed = np.zeros((self.channels * self.blocks, self.sides, self.runs, count, VECTOR), np.int8)
        if self.sides == 2:
            packed[: c.out_channels, 0, 0, 0, : c.channels] = rows[:, 0]
            packed[: c.out_channels, 1, 0, 0, c.channels :] = rows[:, 0]
        else:
            for v in range(count):
                start = self.vector_start(v)
                part = rows[:, :, max(start, v * VECTOR) : start + VECTOR]
                skipped = v * VECTOR - start
                packed[: c.out_channels, 0, :, v, skipped : skipped + part.shape[2]] = part
        vectors = packed.reshape(self.blocks, self.channels, -1, VECTOR).transpose(0, 2, 1, 3)
        words = np.ascontiguousarray(vectors).view(np.int32).reshape(self.blocks, -1)
        factors = c.epilogue.parameters(multiplier, shift)
        if self.plan.pixels == 4:
            factors = np.stack([factors[0], np.clip(shift, -31, -1)]).astype(np.int32)
        shared = factors[:, 0] if self.plan.one_scale else factors[:0, 0]
        parameters = block_parameters(bias, factors[:0] if self.plan.one_scale else factors, self.channels)
        counts = np.array([self.blocks, self.rounds - self.peeled, self.chunks], np.int32)
        return np.concatenate([self.band.counts, counts, shared, np.concatenate([parameters, words], axis=1).ravel()])

    @property
    def _same_shape(self) -> bool:
        c = self.conv
        same = (c.height, c.width, c.channels) == (c.out_height, c.out_width, c.out_channels)
        return same and c.strides == (1, 1) and self.residual is None

    @property
    def staged(self) -> bool:
        """Whether the fields of a pair are read before any output of theirs is written."""
        small = self.chunks == 1 and 2 * self.conv.channels <= _STAGED_BYTES
        return self.plan.source == "direct" and small and self._same_shape

    @property
    def inplace(self) -> bool:
        """Whether outputs may lie where inputs lay."""
        copied = self.plan.source in ("band", "columns") and self.band.reads_once
        return self._same_shape and (self.staged or copied)

    def function(self) -> tirx.PrimFunc:
        """The function of (input, constants, other operand, constants of the sum, output), all flat.

        Without a residual the other operand and its constants are not read: any tensor will do.
        """
        return _build(self)


def _build(k: HeliumKernel) -> tirx.PrimFunc:
    c, plan, ep, shape = k.conv, k.plan, k.conv.epilogue, k.band
    H, W, C, OH, OW, CO = c.height, c.width, c.channels, c.out_height, c.out_width, c.out_channels
    SH, SW = c.strides
    KH, RUN, NB, U = c.kernel[0], c.run, k.blocks, plan.unroll
    COLUMNS, PAIRED = plan.source == "columns", plan.source == "paired"
    DIRECT = plan.source in ("direct", "paired")
    FLAT = COLUMNS or (DIRECT and c.strides == (1, 1))
    BANDS, ROWS = (1, OH) if DIRECT else (OH // plan.rows, plan.rows)
    # Positions of a walk, and how many walks a band needs.
    M, LINES = (ROWS * OW, 1) if FLAT else (OW, ROWS)
    UNIT = 1 if DIRECT or COLUMNS else shape.unit
    PITCH = W * C if DIRECT else shape.pitch
    PIXELS, CHANNELS = 1 if M == 1 else plan.pixels, k.channels
    WIDE = plan.pixels == 4
    STEP = (k.run if COLUMNS else SW * C) // UNIT
    PANEL = k.panel_bytes if COLUMNS else VECTOR
    HEADER = k.header
    BW, PW = k.block_words, k.block_words - k.weight_words
    TOTAL = HEADER + NB * BW
    PARTIAL = CO % CHANNELS != 0
    ADD, STAGED = k.residual is not None, k.staged
    RN, TN = (OH * OW * CO, k.residual.words) if ADD else (H * W * C, TOTAL)
    # Runs and rounds of the loops around a round.
    R0, R1, PEELED = k.rounds, plan.runs, k.peeled > 0
    DTYPE, ELEMENTS = (shape.dtype, shape.elements) if not DIRECT else ("int8", VECTOR)

    def pixel(pair, px):
        """The pixels of a pair; the last pair repeats a pixel, with a sum its own, which is then not stored twice."""
        if M % PIXELS == 0:
            return pair * PIXELS + px
        return T.min(pair * PIXELS + px, M - 1) if ADD or STAGED or WIDE else T.min(pair * PIXELS, M - PIXELS) + px

    def offset(line, pair, px, run, chunk, v):
        """Offset of a vector in what it is read from."""
        start = 0 if FLAT else line * (SH * PITCH // UNIT)
        inside = k.vector_start(v) // UNIT if k.chunks == 1 else chunk * (U * VECTOR // UNIT) + v * VECTOR // UNIT
        return start + pixel(pair, 0 if PAIRED else px) * STEP + run * (PITCH // UNIT) + inside

    def places(band, line, pair, n):
        """Offsets of the outputs of the pixels of a pair."""
        start = (band * ROWS + line) * OW
        return [(start + pixel(pair, px)) * CO + n * CHANNELS for px in range(PIXELS)]

    def accumulate(buffer, constants, acc, line, pair, n, r0, chunk):
        """One round of the inner loop."""
        for r1 in range(R1):
            for v in k.order:
                run = r0 * R1 + r1
                place = ((run * k.chunks + chunk) * U + v) * (CHANNELS * VECTOR // 4)
                for j in range(CHANNELS):
                    for px in range(PIXELS):
                        side = px * (k.weight_words // 2) if PAIRED else 0
                        weights = as_bytes(load_words(constants, HEADER + n * BW + PW + side + place + j * 4))
                        data = buffer[px * U + v] if STAGED else load_run(buffer, offset(line, pair, px, run, chunk, v))
                        T.buffer_store(acc, vmladava(acc[px * CHANNELS + j], data, weights), [px * CHANNELS + j])

    def finish(constants, acc, result, skip, table, places, n):
        base = HEADER + n * BW
        params = [load_words(constants, base)]
        for i in range(ep.words):
            shared = tirx.Broadcast(constants[HEAD + 3 + i], 4) if plan.one_scale else None
            params.append(load_words(constants, base + 4 * (1 + i)) if shared is None else shared)
        for px in range(PIXELS):
            sums = vector(*[acc[px * 4 + j] for j in range(4)]) + params[0]
            if ADD:
                other = skip.vload([places[px]], "int8x4").astype("int32x4")
                value = k.residual.apply(ep.limited(sums, params[1:]), other, table)
            else:
                value = ep.apply(sums, params[1:])
            T.buffer_store(result, value, [px])

    def finish_wide(constants, acc, skip, table, out, places, n):
        """Statements that make the outputs of four pixels, a channel at a time."""
        base = HEADER + n * BW
        for j in range(CHANNELS):
            bias, factor, shift = (constants[base + CHANNELS * i + j] for i in range(3))
            sums = vector(*[acc[px * CHANNELS + j] for px in range(PIXELS)]) + tirx.Broadcast(bias, 4)
            value = vrshl(ep.high(sums, tirx.Broadcast(factor, 4)), shift) + splat(ep.zero_point)
            steps = tirx.Shuffle([place - places[0] for place in places], [i32(px) for px in range(PIXELS)])
            if ADD:
                limited = tirx.min(tirx.max(value, splat(ep.qmin)), splat(ep.qmax))
                value = k.residual.scaled(limited, gather_bytes(skip, places[0] + j, steps), table)
                bounds = k.residual.epilogue
            else:
                bounds = ep
            scatter_bytes(out, places[0] + j, steps, bounds.words_of(value))

    def store(out, result, places, pair, n):
        for px in range(PIXELS):
            if ADD and M % PIXELS:
                with T.If(pair * PIXELS + px < M), T.Then():
                    store_pixel(out, result[px], places[px], n)
            else:
                store_pixel(out, result[px], places[px], n)

    def store_pixel(out, value, place, n):
        if not PARTIAL:
            T.buffer_store(out, value, [tirx.Ramp(place, i32(1), 4)])
            return
        for j in range(4):
            with T.If(n * 4 + j < CO), T.Then():
                T.buffer_store(out, tirx.Shuffle([value], [i32(j)]), [place + j])

    def copy_columns(source, panel):
        unit = shape.unit
        with T.serial(ROWS) as line, T.serial(OW) as p:
            for ky in range(KH):
                for v in range(-(-RUN // VECTOR)):
                    start = (line * SH + ky) * (PITCH // unit) + p * (SW * C // unit) + v * (VECTOR // unit)
                    place = tirx.Ramp((line * OW + p) * k.run + ky * RUN + v * VECTOR, i32(1), VECTOR)
                    T.buffer_store(panel, load_run(source, start), [place])

    def rounds(constants):
        return constants[HEAD + 1] if R0 > 1 else 1

    def chunks(constants):
        return constants[HEAD + 2] if k.chunks > 1 else 1

    def stage(x, fields, line, pair):
        for px in range(PIXELS):
            for v in range(U):
                T.buffer_store(fields, load_run(x, offset(line, pair, px, 0, 0, v)), [px * U + v])

    def read_from(x, source, panel, fields):
        return fields if STAGED else panel if COLUMNS else x if DIRECT else source

    @T.prim_func(s_tir=True)
    def conv(
        x: T.Buffer((H * W * C,), "int8"),
        constants: T.Buffer((TOTAL,), "int32"),
        skip: T.Buffer((RN,), "int8"),
        table: T.Buffer((TN,), "int32"),
        out: T.Buffer((OH * OW * CO,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        source = T.alloc_buffer((ELEMENTS,), DTYPE)
        panel = T.alloc_buffer((PANEL,), "int8")
        acc = T.alloc_buffer((CHANNELS * PIXELS,), "int32")
        result = T.alloc_buffer((PIXELS,), "int8x4")
        fields = T.alloc_buffer((PIXELS * U if STAGED else 1,), "int8x16")
        if not DIRECT:
            shape.clear(source, constants)
        for band in range(BANDS):
            if not DIRECT:
                shape.fill(x, source, band, constants)
            if COLUMNS:
                copy_columns(source, panel)
            for line in range(LINES):
                for p in range(-(-M // PIXELS)):
                    if STAGED:
                        stage(x, fields, line, p)
                    for n in range(constants[HEAD]):
                        for j in T.unroll(CHANNELS * PIXELS):
                            acc[j] = 0
                        if PEELED:
                            accumulate(read_from(x, source, panel, fields), constants, acc, line, p, n, 0, 0)
                        for r0 in range(rounds(constants)):
                            for ch in range(chunks(constants)):
                                accumulate(read_from(x, source, panel, fields), constants, acc, line, p, n, r0 + k.peeled, ch)
                        if WIDE:
                            finish_wide(constants, acc, skip, table, out, places(band, line, p, n), n)
                        else:
                            finish(constants, acc, result, skip, table, places(band, line, p, n), n)
                            store(out, result, places(band, line, p, n), p, n)

    workspaces = {} if DIRECT else {"source": shape.bytes}
    if COLUMNS:
        workspaces["panel"] = PANEL
    conv = conv.with_attr("tvmcompress.workspaces", workspaces or {"": 0})
    if ADD:
        return conv.with_attr("tvmcompress.inplace", 2)
    return conv.with_attr("tvmcompress.inplace", 0) if k.inplace else conv
