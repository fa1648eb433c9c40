"""The input rows of some output rows, copied to a workspace and padded with the zero point.

Trip counts are read from memory: LLVM would unroll the copying loops completely, and they are not what takes time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from .vectors import VECTOR, as_bytes, as_words, i32, load_bytes, load_run

# mypy: ignore-errors

HEAD = 6
"""Words of `Band.counts`."""


@dataclass(frozen=True)
class Band:
    """A band of rows.

    Attributes:
        height, width, channels: Of the input.
        top, left: Padding before.
        columns: Input columns that the outputs of a row reach, padding included.
        rows: Rows of the band.
        step: Rows from one band to the next.
        slack: Bytes that may be read behind the last row.
        zero_point: What padding holds.
    """

    height: int
    width: int
    channels: int
    top: int
    left: int
    columns: int
    rows: int
    step: int
    slack: int
    zero_point: int

    @property
    def unit(self) -> int:
        """Bytes of an element: words where pixels consist of words, since their loads reach further."""
        return 1 if self.channels % 4 else 4

    @property
    def dtype(self) -> str:
        """The dtype of the workspace."""
        return "int8" if self.channels % 4 else "int32"

    @property
    def pitch(self) -> int:
        """Bytes of a row."""
        return -(-max(self.columns, self.left + self.width) * self.channels // VECTOR) * VECTOR

    @property
    def kept(self) -> int:
        """Rows that the next band takes over; a single one is read again."""
        rows = self.rows - self.step
        return rows if rows > 1 else 0

    @property
    def reads_once(self) -> bool:
        """Whether each row of the input is read once, so that outputs may take the place of rows already read."""
        return self.rows - self.step in (0, self.kept)

    @property
    def bytes(self) -> int:
        """Bytes of the workspace."""
        return -(-(self.rows * self.pitch + self.slack) // VECTOR) * VECTOR

    @property
    def elements(self) -> int:
        """Elements of the workspace."""
        return self.bytes // self.unit

    @property
    def counts(self) -> np.ndarray:
        """Trip counts of the loops, and a word of zero points, lest LLVM call memset: (HEAD,) int32."""
        row = self.width * self.channels
        parts = [row // VECTOR, row % VECTOR // self.unit, self.pitch // VECTOR, self.bytes // VECTOR, self.rows]
        return np.array([*parts, (self.zero_point & 0xFF) * 0x01010101], np.int64).astype(np.int32)

    def clear(self, band: tirx.Buffer, counts: tirx.Buffer) -> None:
        """Statements that fill the workspace with the zero point, once."""
        with T.serial(counts[3]) as i:
            self._store(band, i * (VECTOR // self.unit), self._padding(counts))

    def fill(self, x: tirx.Buffer, band: tirx.Buffer, index: tirx.PrimExpr, counts: tirx.Buffer) -> None:
        """Statements that bring the rows of band `index`: those kept of the band before, and new ones from `x`.

        Args:
            x: The input, flat int8.
            band: The workspace.
            index: Number of the band.
            counts: Starts with `counts`.
        """
        if not self.kept:
            with T.serial(counts[4]) as r:
                self._bring(x, band, index, r, counts)
            return
        with T.If(index > 0), T.Then(), T.serial(counts[2]) as i:
            # Row by row, LLVM would make calls of memmove, which goes byte by byte.
            for r in range(self.kept):
                place = r * (self.pitch // self.unit) + i * (VECTOR // self.unit)
                self._store(band, place, load_run(band, place + self.step * (self.pitch // self.unit)))
        first = tirx.Select(index > 0, i32(self.kept), i32(0))
        with T.serial(counts[4] - first) as r:
            self._bring(x, band, index, r + first, counts)

    def _bring(self, x: tirx.Buffer, band: tirx.Buffer, index: tirx.PrimExpr, r: tirx.PrimExpr, counts: tirx.Buffer) -> None:
        """Statements that copy row `r` of a band from the input."""
        row_bytes = self.width * self.channels
        y = index * self.step + (r - self.top)
        with T.If(T.And(y >= 0, y < self.height)):
            with T.Then():
                start = r * (self.pitch // self.unit) + self.left * self.channels // self.unit
                with T.serial(counts[0]) as i:
                    value = load_bytes(x, y * row_bytes + i * VECTOR)
                    self._store(band, start + i * (VECTOR // self.unit), value)
                if row_bytes % VECTOR:
                    with T.serial(counts[1]) as i:
                        rest = start + row_bytes // VECTOR * VECTOR // self.unit + i
                        at = y * row_bytes + row_bytes // VECTOR * VECTOR + i * self.unit
                        value = x[at] if self.unit == 1 else tirx.reinterpret("int32", x.vload([at], "int8x4"))
                        T.buffer_store(band, value, [rest])
            with T.Else(), T.serial(counts[2]) as i:
                vector = r * (self.pitch // VECTOR) + i
                self._store(band, vector * (VECTOR // self.unit), self._padding(counts))

    def _padding(self, counts: tirx.Buffer) -> tirx.PrimExpr:
        return as_bytes(tirx.Broadcast(counts[5], VECTOR // 4))

    def _store(self, band: tirx.Buffer, start: tirx.PrimExpr, value: tirx.PrimExpr) -> None:
        lanes = VECTOR // self.unit
        T.buffer_store(band, value if self.unit == 1 else as_words(value), [tirx.Ramp(start, i32(1), lanes)])
