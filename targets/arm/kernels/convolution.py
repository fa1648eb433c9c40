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

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, i32
from .plan import ConvolutionKernel
from .tiles import Tiles, edge

# mypy: ignore-errors


def copy_columns(k: ConvolutionKernel, band: tirx.Buffer, panel: tirx.Buffer) -> None:
    """Statements that copy the fields of a band's outputs to the columns."""
    s = k.shape
    row = s.kernel[1] * s.channels
    with T.serial(k.plan.rows) as line, T.serial(s.out_width) as p:
        for ky in range(s.kernel[0]):
            for v in range(-(-row // VECTOR)):
                start = (line * s.strides[0] + ky) * k.pitch + p * (s.strides[1] * s.channels) + v * VECTOR
                at = (line * s.out_width + p) * k.field + ky * row + v * VECTOR
                left = row - v * VECTOR
                lanes = VECTOR if left > 8 else 8 if left > 4 else 4
                T.buffer_store(panel, band.vload([start], f"int8x{lanes}"), [tirx.Ramp(at, i32(1), lanes)])


def convolution(k: ConvolutionKernel) -> tirx.PrimFunc:
    """The function of (input, weights, parameters, output), all flat."""
    s, plan = k.shape, k.plan
    COLUMNS, DIRECT = plan.source == "columns", plan.source == "direct"
    ROWS = s.out_height if DIRECT else plan.rows
    BANDS = -(-s.out_height // ROWS)
    INPUT, OUTPUT = s.height * s.width * s.channels, s.out_height * s.out_width * s.out_channels
    WEIGHTS, PARAMETERS = len(k.starts) * k.block_bytes, len(k.starts) * k.block_words + len(k.epilogue.tail)

    @T.prim_func(s_tir=True)
    def conv(
        x: T.Buffer((INPUT,), "int8"),
        w: T.Buffer((WEIGHTS,), "int8"),
        q: T.Buffer((PARAMETERS,), "int32"),
        out: T.Buffer((OUTPUT,), "int8"),
    ):
        T.func_attr({"tirx.noalias": True})
        band = T.alloc_buffer((VECTOR if DIRECT else k.band.nbytes,), "int8")
        panel = T.alloc_buffer((k.columns_bytes if COLUMNS else VECTOR,), "int8")
        # Of another scope than the workspaces, lest TVM lets them share memory, which it cannot do with vectors.
        acc = T.alloc_buffer((k.sums,), "int32x4", scope="local")
        result = T.alloc_buffer((len(k.pixel_offsets) * plan.vectors,), "int32x4", scope="local")
        for b in T.serial(BANDS) if DIRECT else parallel(BANDS):
            if not DIRECT:
                k.band.fill(x, band, edge(b, ROWS, s.out_height))
            if COLUMNS:
                copy_columns(k, band, panel)
            Tiles(k, panel if COLUMNS else x if DIRECT else band, w, q, out, acc, result).walk(
                edge(b, ROWS, s.out_height), divided=DIRECT
            )

    workspaces = {} if DIRECT else {"band": k.band.nbytes}
    if COLUMNS:
        workspaces["panel"] = k.columns_bytes
    return conv.with_attr("tvmcompress.workspaces", workspaces or {"": 0})
