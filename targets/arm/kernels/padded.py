"""Rows of an NHWC input, copied to a workspace with their padding.

Rows are written one behind the other, so what a vector writes beyond the end of a row the next one overwrites.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR, i32
from .neon import splat_bytes

# mypy: ignore-errors

_UNROLLED = 4
"""Vectors that are copied in one round."""


@dataclass(frozen=True)
class PaddedRows:
    """The input rows of `rows` output rows.

    Attributes:
        shape: The layer.
        rows: Output rows.
        slack: Bytes that may be read behind the last row.
    """

    shape: ConvolutionShape
    rows: int
    slack: int = VECTOR

    @property
    def pitch(self) -> int:
        """Bytes of a row."""
        s = self.shape
        columns = (s.out_width - 1) * s.strides[1] + s.kernel[1]
        return max(columns, min(s.left + s.width, columns)) * s.channels

    @property
    def count(self) -> int:
        """Rows."""
        return (self.rows - 1) * self.shape.strides[0] + self.shape.kernel[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the workspace."""
        return -(-(self.count * self.pitch + max(self.slack, VECTOR)) // VECTOR) * VECTOR

    def fill(self, x: tirx.Buffer, workspace: tirx.Buffer, start: tirx.PrimExpr) -> None:
        """Statements that copy the rows for the output rows from `start` on."""
        s = self.shape
        first, across = s.left * s.channels, s.width * s.channels
        taken = min(across, self.pitch - first)
        with T.serial(self.count) as r:
            y = start * s.strides[0] + (r - s.top)
            at = r * self.pitch
            with T.If(T.And(y >= 0, y < s.height)):
                with T.Then():
                    self._pad(workspace, at, first)
                    self._copy(x, y * across, workspace, at + first, taken)
                    self._pad(workspace, at + first + taken, self.pitch - first - taken)
                with T.Else():
                    self._pad(workspace, at, self.pitch)

    def _pad(self, workspace: tirx.Buffer, at: tirx.PrimExpr, size: int) -> None:
        whole = size // VECTOR
        if whole:
            with T.serial(whole) as i:
                self._store(workspace, at + i * VECTOR, splat_bytes(self.shape.input_zero_point, VECTOR))
        if size % VECTOR:
            self._store(workspace, at + whole * VECTOR, splat_bytes(self.shape.input_zero_point, VECTOR))

    def _copy(self, x: tirx.Buffer, source: tirx.PrimExpr, workspace: tirx.Buffer, at: tirx.PrimExpr, size: int) -> None:
        whole, done = size // VECTOR, 0
        for unroll in (_UNROLLED, 1):
            rounds = whole // unroll
            if rounds:
                with T.serial(rounds) as i:
                    for j in range(unroll):
                        place = done + (i * unroll + j) * VECTOR
                        self._store(workspace, at + place, x.vload([source + place], "int8x16"))
            done += rounds * unroll * VECTOR
            whole -= rounds * unroll
        if size >= VECTOR:
            if size % VECTOR:
                self._store(workspace, at + size - VECTOR, x.vload([source + (size - VECTOR)], "int8x16"))
            return
        # The vectors of a short row would reach beyond the input.
        for lanes in (8, 4, 2, 1):
            if size & lanes:
                kind = f"int8x{lanes}" if lanes > 1 else "int8"
                where = tirx.Ramp(at + done, i32(1), lanes) if lanes > 1 else at + done
                T.buffer_store(workspace, x.vload([source + done], kind) if lanes > 1 else x[source + done], [where])
                done += lanes

    def _store(self, workspace: tirx.Buffer, at: tirx.PrimExpr, value: tirx.PrimExpr) -> None:
        T.buffer_store(workspace, value, [tirx.Ramp(at, i32(1), VECTOR)])
