"""Convolution and pointwise convolution with Helium.

VMLADAVA multiplies sixteen bytes by sixteen bytes and adds all products to a general register, so weights and activations
stay bytes, and a receptive field is read in runs: the columns and channels of a kernel's row lie next to one another in
NHWC. Two pixels by four output channels are made at a time; their eight sums take all the registers that VMLADAVA can add
to, and six loads serve eight multiplications. The input's zero point goes into the bias, so borders hold it. Where fields
are read from depends on the layer:

- *direct*: a 1x1 kernel without padding reads the input as it lies;
- *band*: the input rows of some output rows are copied to a band padded with the zero point;
- *columns*: where runs are much shorter than a vector, the fields of one output row are copied from the band, the rows of
  each one behind the other.

Vectors reach beyond a run, where weights are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from .helium_add import HeliumSum
from .helium_epilogue import HeliumEpilogue, block_parameters
from .helium_words import VECTOR, as_bytes, load_bytes, load_words, vector, vmladava

# mypy: ignore-errors

_STACK_BYTES = 256


@dataclass(frozen=True)
class HeliumConvolution:
    """The shape of a convolution, NHWC with batch 1, no groups.

    Attributes:
        height, width, channels: Of the input.
        out_height, out_width, out_channels: Of the output.
        kernel, strides: (vertical, horizontal).
        top, left: Padding before; what lies behind follows from the sizes.
        input_zero_point: What padding holds.
        epilogue: How accumulators become outputs.
    """

    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    top: int
    left: int
    input_zero_point: int
    epilogue: HeliumEpilogue

    @property
    def run(self) -> int:
        """Bytes of a kernel's row."""
        return self.kernel[1] * self.channels

    @property
    def pointwise(self) -> bool:
        """Whether every output pixel is made of one input pixel."""
        inside = (self.out_height - 1) * self.strides[0] < self.height and (self.out_width - 1) * self.strides[
            1
        ] < self.width
        return self.kernel == (1, 1) and self.top == 0 and self.left == 0 and inside

    @property
    def pitch(self) -> int:
        """Bytes of a row of the band."""
        columns = max((self.out_width - 1) * self.strides[1] + self.kernel[1], self.left + self.width)
        return -(-columns * self.channels // VECTOR) * VECTOR

    def band_rows(self, rows: int) -> int:
        """Input rows that `rows` output rows need."""
        return (rows - 1) * self.strides[0] + self.kernel[0]


@dataclass(frozen=True)
class HeliumPlan:
    """The choices of the template.

    Attributes:
        source: "direct", "band" or "columns".
        rows: Output rows made from one band.
        unroll: Vectors of a run in one round of the inner loop.
    """

    source: str
    rows: int
    unroll: int


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
    def field(self) -> int:
        """Bytes of a field of the columns."""
        return -(-self.conv.kernel[0] * self.conv.run // VECTOR) * VECTOR

    @cached_property
    def chunks(self) -> int:
        """Rounds of the inner loop in a run."""
        run = self.field if self.plan.source == "columns" else self.conv.run
        return -(-run // (VECTOR * self.plan.unroll))

    @property
    def span(self) -> int:
        """Bytes that the vectors of a run read."""
        return self.chunks * self.plan.unroll * VECTOR

    @property
    def band_bytes(self) -> int:
        """Bytes of the band, with what vectors may read behind it."""
        return self.conv.band_rows(self.plan.rows) * self.conv.pitch + self.span

    @property
    def panel_bytes(self) -> int:
        """Bytes of the columns. What vectors write behind a field is overwritten by the next one; the last needs room."""
        return self.conv.out_width * self.field + max(self.span - self.field, VECTOR)

    @property
    def blocks(self) -> int:
        """Blocks of four output channels."""
        return -(-self.conv.out_channels // 4)

    def weights(self, weights: np.ndarray) -> np.ndarray:
        """Pack (O, KH, KW, C) int8 weights vector by vector, four channels side by side; flat int32."""
        c = self.conv
        rows = weights.reshape(c.out_channels, self.runs, -1)
        padded = np.zeros((4 * self.blocks, self.runs, self.span), np.int8)
        padded[: c.out_channels, :, : rows.shape[2]] = rows
        vectors = padded.reshape(self.blocks, 4, -1, VECTOR).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(vectors).view(np.int32).ravel()

    def parameters(self, bias: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Pack what the epilogue needs, flat int32, behind the trip counts of the inner loops.

        LLVM would keep all weights in registers and spill them if it knew that the loop runs.
        """
        packed = block_parameters(bias, self.conv.epilogue.parameters(multiplier, shift))
        return np.concatenate([np.array([self.runs, self.chunks, 0, 0], np.int32), packed.ravel()])

    def function(self) -> tirx.PrimFunc:
        """The function of (input, weights, parameters, other operand, constants of the sum, output), all flat.

        Without a residual the other operand and the constants are not read: any tensor will do.
        """
        return _build(self)


def _build(k: HeliumKernel) -> tirx.PrimFunc:
    c, plan, ep = k.conv, k.plan, k.conv.epilogue
    H, W, C, OH, OW, CO = c.height, c.width, c.channels, c.out_height, c.out_width, c.out_channels
    SH, SW = c.strides
    KH, RUN, NB, U = c.kernel[0], c.run, k.blocks, plan.unroll
    DIRECT, COLUMNS = plan.source == "direct", plan.source == "columns"
    FLAT = DIRECT and c.strides == (1, 1)
    # Positions of a walk, and how often one is made.
    M, ROWS = (OH * OW, 1) if FLAT else (OW, OH if DIRECT else plan.rows)
    BANDS = 1 if DIRECT else -(-OH // plan.rows)
    PITCH = W * C if DIRECT else c.pitch
    BH = c.band_rows(plan.rows)
    SIZE = VECTOR if DIRECT else k.band_bytes
    FIELD = k.field
    PANEL = k.panel_bytes if COLUMNS else VECTOR
    WORDS = k.runs * k.span
    QW = 4 * (1 + ep.words)
    PIXELS = 1 if M == 1 else 2
    PARTIAL = CO % 4 != 0
    STEP = FIELD if COLUMNS else SW * C
    COPIED = min(W * C, PITCH - c.left * C)
    ZP = c.input_zero_point
    ADD = k.residual is not None
    RN, TN = (OH * OW * CO, k.residual.words) if ADD else (H * W * C, 4 + NB * QW)

    def pixel(pair, px):
        position = pair * PIXELS + px
        return T.min(position, M - 1) if M % PIXELS else position

    def first_row(band):
        return T.min(band * plan.rows, OH - plan.rows) if OH % plan.rows else band * plan.rows

    def run_start(row, pair, px, ky, chunk):
        """Offset of a run's part in what it is read from."""
        line = 0 if COLUMNS or FLAT else row * (SH * PITCH)
        return line + pixel(pair, px) * STEP + ky * PITCH + chunk * (U * VECTOR)

    def runs(q):
        """Rounds of the loop over a field's runs."""
        return q[0] if k.runs > 1 else 1

    def chunks(q):
        """Rounds of the loop over a run's chunks, unknown to LLVM unless weights may stay in registers."""
        return 1 if k.chunks == 1 and (k.runs > 1 or U <= 2) else q[1]

    def at(band, row, pair, px, n):
        """Offset of four outputs."""
        line = 0 if FLAT else (row if DIRECT else first_row(band) + row) * OW
        return (line + pixel(pair, px)) * CO + n * 4

    def finish(acc, q, skip, constants, px, n, index):
        sums = vector(*[acc[px * 4 + j] for j in range(4)])
        params = [load_words(q, 4 + n * QW + 4 * (1 + i)) for i in range(ep.words)]
        if not ADD:
            return ep.apply(sums, params)
        return k.residual.apply(ep.limited(sums, params), skip.vload([index], "int8x4").astype("int32x4"), constants)

    source_of = (lambda x, band, panel: panel) if COLUMNS else (lambda x, band, panel: x if DIRECT else band)

    @T.prim_func(s_tir=True)
    def conv(
        x: T.Buffer((H * W * C,), "int8"),
        w: T.Buffer((NB * WORDS,), "int32"),
        q: T.Buffer((4 + NB * QW,), "int32"),
        skip: T.Buffer((RN,), "int8"),
        constants: T.Buffer((TN,), "int32"),
        out: T.Buffer((OH * OW * CO,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        source = T.alloc_buffer((SIZE,), "int8")
        panel = T.alloc_buffer((PANEL,), "int8")
        acc = T.alloc_buffer((4 * PIXELS,), "int32")
        result = T.alloc_buffer((4,), "int8")
        if not DIRECT:
            for i in range(SIZE // VECTOR):
                source[T.ramp(i * VECTOR, 1, VECTOR)] = T.broadcast(T.int8(ZP), VECTOR)
        for band in range(BANDS):
            if not DIRECT:
                for r in range(BH):
                    if T.And(first_row(band) * SH + r - c.top >= 0, first_row(band) * SH + r - c.top < H):
                        for i in range(COPIED // VECTOR):
                            source[T.ramp(r * PITCH + c.left * C + i * VECTOR, 1, VECTOR)] = load_bytes(
                                x, (first_row(band) * SH + r - c.top) * (W * C) + i * VECTOR
                            )
                        for i in range(COPIED % VECTOR):
                            source[r * PITCH + c.left * C + COPIED // VECTOR * VECTOR + i] = x[
                                (first_row(band) * SH + r - c.top) * (W * C) + COPIED // VECTOR * VECTOR + i
                            ]
                    else:
                        for i in range(PITCH // VECTOR):
                            source[T.ramp(r * PITCH + i * VECTOR, 1, VECTOR)] = T.broadcast(T.int8(ZP), VECTOR)
            for row in range(ROWS if COLUMNS else 1):
                if COLUMNS:
                    for p in range(OW):
                        for ky in T.unroll(KH):
                            for v in T.unroll(-(-RUN // VECTOR)):
                                panel[T.ramp(p * FIELD + ky * RUN + v * VECTOR, 1, VECTOR)] = load_bytes(
                                    source, (row * SH + ky) * PITCH + p * SW * C + v * VECTOR
                                )
                for n in range(NB):
                    for line in range(1 if COLUMNS else ROWS):
                        for p in range(-(-M // PIXELS)):
                            for j in T.unroll(4 * PIXELS):
                                acc[j] = q[4 + n * QW + j % 4]
                            for ky in range(runs(q)):
                                for ch in range(chunks(q)):
                                    for u in T.unroll(U):
                                        for j in T.unroll(4):
                                            for px in T.unroll(PIXELS):
                                                acc[px * 4 + j] = vmladava(
                                                    acc[px * 4 + j],
                                                    load_bytes(
                                                        source_of(x, source, panel),
                                                        run_start(line, p, px, ky, ch) + u * VECTOR,
                                                    ),
                                                    as_bytes(
                                                        load_words(
                                                            w, n * WORDS + ((ky * k.chunks + ch) * U + u) * VECTOR + j * 4
                                                        )
                                                    ),
                                                )
                            for px in T.unroll(PIXELS):
                                if PARTIAL:
                                    result[T.ramp(0, 1, 4)] = finish(
                                        acc, q, skip, constants, px, n, at(band, row + line, p, px, n)
                                    )
                                    for j in T.unroll(4):
                                        if n * 4 + j < CO:
                                            out[at(band, row + line, p, px, n) + j] = result[j]
                                else:
                                    out[T.ramp(at(band, row + line, p, px, n), 1, 4)] = finish(
                                        acc, q, skip, constants, px, n, at(band, row + line, p, px, n)
                                    )

    workspaces = {} if DIRECT else {"source": SIZE}
    if COLUMNS:
        workspaces["panel"] = PANEL
    conv = conv.with_attr("tvmcompress.workspaces", workspaces or {"": 0})
    return conv.with_attr("tvmcompress.inplace", 3) if ADD else conv
