"""The code of a tile of pixels and channels: what convolutions and matrix products share."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script import tirx as T

from ...kernels.parallel import parallel
from ...kernels.vectors import VECTOR, i32, load_words
from .neon import joined, shuffled
from .plan import ConvolutionKernel, Phase

# mypy: ignore-errors


def edge(index: tirx.PrimExpr, tile: int, extent: int) -> tirx.PrimExpr:
    """The first of `tile` places, the last ones overlapping those before."""
    return index * tile if extent % tile == 0 else T.min(index * tile, extent - tile)


class Tiles:
    """The tiles of a kernel, with the buffers that they read and write.

    Args:
        kernel: The kernel.
        source: What receptive fields are read from.
        weights: As `ConvolutionKernel.weights`.
        parameters: As `ConvolutionKernel.parameters`.
        out: The output.
        acc: Local, int32x4, as many as the sums of a tile.
        result: Local, int32x4, as many as pixels by vectors of channels.
        terms: What is added to all sums of a pixel, given the number of the pixel in its walk; an int32.
    """

    def __init__(
        self,
        kernel: ConvolutionKernel,
        source: tirx.Buffer,
        weights: tirx.Buffer,
        parameters: tirx.Buffer,
        out: tirx.Buffer,
        acc: tirx.Buffer,
        result: tirx.Buffer,
        terms: Callable[[tirx.PrimExpr], tirx.PrimExpr] | None = None,
    ) -> None:
        self.kernel, self.source, self.w, self.q, self.out = kernel, source, weights, parameters, out
        self.acc, self.result, self.terms = acc, result, terms

    def walk(
        self,
        start: tirx.PrimExpr | int,
        read: tirx.PrimExpr | int = 0,
        written: tirx.PrimExpr | int = 0,
        *,
        divided: bool = False,
    ) -> None:
        """The tiles of a band.

        Args:
            start: Its first output row.
            read, written: Where the source and the output start.
            divided: Whether threads share the longest of the loops.
        """
        k = self.kernel
        down, across = k.plan.pixels
        lines, width = k.walk
        counts = (len(k.starts), -(-lines // down), -(-width // across))
        longest = counts.index(max(counts)) if divided else None
        blocks, rows, columns = (parallel(n) if at == longest else T.serial(n) for at, n in enumerate(counts))
        with blocks as n, rows as i, columns as j:
            line, column = edge(i, down, lines), edge(j, across, width)
            self._tile(n, read + line * k.line_step + column * k.step, start + line, column, written)

    def _tile(
        self, n: tirx.PrimExpr, at: tirx.PrimExpr, line: tirx.PrimExpr, column: tirx.PrimExpr, written: tirx.PrimExpr
    ) -> None:
        k = self.kernel
        vectors, by_channel = k.plan.vectors, k.products.by_channel
        for j in range(k.sums):
            at_bias = n * k.block_words + (j if k.copies > 1 else j % vectors) * 4
            bias = load_words(self.q, at_bias) if by_channel else tirx.Broadcast(i32(0), 4)
            T.buffer_store(self.acc, bias, [j])
        if k.runs == 1:
            self._run(at, n * k.block_bytes)
        else:
            with T.serial(k.runs) as r:
                self._run(at + r * k.pitch, n * k.block_bytes + r * (k.block_bytes // k.runs))
        self._finish(n * k.block_words, column)
        width, outputs = 4 * vectors, k.shape.out_channels
        self._store(line, column, edge(n, width, outputs) if outputs > width else 0, written)

    def _run(self, at: tirx.PrimExpr, block: tirx.PrimExpr) -> None:
        done = 0
        for phase in self.kernel.phases:
            if phase.rounds == 1:
                self._accumulate(at, block + done, phase, 0)
            else:
                with T.serial(phase.rounds) as i:
                    self._accumulate(at, block + done, phase, i)
            done += phase.rounds * phase.nbytes * 4 * self.kernel.plan.vectors

    def _accumulate(self, at: tirx.PrimExpr, place: tirx.PrimExpr, phase: Phase, i: tirx.PrimExpr | int) -> None:
        """One round of a phase."""
        k = self.kernel
        width = 4 * k.plan.vectors
        place = place + i * (phase.nbytes * width)
        for offset, size in phase.steps:
            data = [self._load(at + (i * phase.stride + offset + inside), size) for inside in k.pixel_offsets]
            loads = [self.w.vload([place + j * VECTOR], "int8x16") for j in range(size * width // VECTOR)]
            k.products.step(self.acc, data, loads, size)
            place = place + size * width

    def _load(self, at: tirx.PrimExpr, size: int) -> tirx.PrimExpr:
        """int8x16 of which the first `size` bytes count."""
        if size > 8:
            return self.source.vload([at], "int8x16")
        if size == 8:
            half = self.source.vload([at], "int8x8")
            return joined(half, half, 8)
        return shuffled([self.source.vload([at], "int8x4")] * 4, range(VECTOR))

    def _finish(self, block: tirx.PrimExpr, column: tirx.PrimExpr) -> None:
        k = self.kernel
        vectors, pixels = k.plan.vectors, len(k.pixel_offsets)
        words = [
            [load_words(self.q, block + (i * vectors + v) * 4) for i in (0, *range(k.copies, k.copies + k.epilogue.words))]
            for v in range(vectors)
        ]
        sums = k.products.finish([self.acc[j] for j in range(k.sums)], pixels, vectors)
        for index, total in enumerate(sums):
            bias, *factors = words[index % vectors]
            if not k.products.by_channel:
                total = total + bias
            if self.terms is not None:
                total = total + tirx.Broadcast(self.terms(column + index // vectors), 4)
            T.buffer_store(self.result, k.epilogue.scaled(total, factors), [index])

    def _store(self, line: tirx.PrimExpr, column: tirx.PrimExpr, channel: tirx.PrimExpr, written: tirx.PrimExpr) -> None:
        """Stores the tile whose first pixel is (line, column)."""
        k = self.kernel
        (down, across), vectors, outputs = k.plan.pixels, k.plan.vectors, k.shape.out_channels
        # Where a tile has all channels, its pixels lie behind one another.
        together = outputs == 4 * vectors
        length = across * vectors if together else vectors
        values = [self.result[i] for i in range(down * across * vectors)]
        zero = k.epilogue.zero(self.q, len(k.starts) * k.block_words)
        for index in range(len(values) // length):
            run = values[index * length :][:length]
            line_at = line + (index if together else index // across)
            column_at = column if together else column + index % across
            place = written + (line_at * k.shape.out_width + column_at) * outputs + channel
            done = 0
            while run:
                count = 4 if len(run) >= 4 else 2 if len(run) >= 2 else 1
                part, run = run[:count], run[count:]
                value = k.epilogue.bytes(part, zero)
                if outputs < 4 * vectors:
                    # Less than a block of channels.
                    for j in range(max(0, min(4 * count, outputs - done))):
                        T.buffer_store(self.out, tirx.Shuffle([value], [i32(j)]), [place + (done + j)])
                else:
                    T.buffer_store(self.out, value, [tirx.Ramp(place + done, i32(1), 4 * count)])
                done += 4 * count
