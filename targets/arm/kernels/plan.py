"""The plan of a convolution by tiles, and how its constants are packed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...kernels.layers import ConvolutionShape
from ...kernels.vectors import VECTOR
from .epilogue import Epilogue
from .padded import PaddedRows
from .products import Products

_SHORT = 64
"""Bytes of a field; measured."""


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
    """One convolution by one plan: the packed constants and the function.

    Args:
        shape: Its shape.
        epilogue: How sums become outputs.
        products: How bytes are multiplied.
        plan: The plan.
        constant: Whether the biases are constants. Where sums start at them, each pixel of a tile then has its own copy: an
            instruction loads two vectors, and copies only one from register to register. That pays where fields are short.
    """

    def __init__(
        self, shape: ConvolutionShape, epilogue: Epilogue, products: Products, plan: Plan, *, constant: bool = True
    ) -> None:
        self.shape, self.epilogue, self.products, self.plan = shape, epilogue, products, plan
        short = shape.kernel[0] * shape.kernel[1] * shape.channels <= _SHORT
        self.copies = plan.pixels[0] * plan.pixels[1] if constant and short and products.by_channel else 1

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
        return 4 * self.plan.vectors * (self.copies + self.epilogue.words)

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
        """The biases, so many times, then each word of the epilogue, by block, and the zero point at the end: flat int32."""
        width = 4 * self.plan.vectors
        biases = np.repeat(bias[None].astype(np.int32), self.copies, axis=0)
        rows = np.concatenate([biases, self.epilogue.parameters(multiplier, shift)])
        rows = np.pad(rows, ((0, 0), (0, max(0, width - rows.shape[1]))))
        blocks = [rows[:, start : start + width].ravel() for start in self.starts]
        return np.concatenate([*blocks, self.epilogue.tail])

    @cached_property
    def walk(self) -> tuple[int, int]:
        """Rows and pixels of what tiles walk over at a time."""
        s, plan = self.shape, self.plan
        rows = s.out_height if plan.source == "direct" else plan.rows
        return (1, rows * s.out_width) if self.flat else (rows, s.out_width)

    @cached_property
    def pitch(self) -> int:
        """Bytes from a row to the next one of what fields are read from."""
        return self.shape.width * self.shape.channels if self.plan.source == "direct" else self.band.pitch

    @property
    def line_step(self) -> int:
        """Bytes from an output row's fields to those of the next one."""
        return self.shape.strides[0] * self.pitch

    @property
    def step(self) -> int:
        """Bytes from an output pixel's field to that of the next one."""
        return self.field if self.plan.source == "columns" else self.shape.strides[1] * self.shape.channels

    @cached_property
    def pixel_offsets(self) -> list[int]:
        """Of the fields of a tile's pixels."""
        down, across = self.plan.pixels
        return [r * self.line_step + c * self.step for r in range(down) for c in range(across)]

    @cached_property
    def sums(self) -> int:
        """Vectors of sums of a tile."""
        return self.products.sums(len(self.pixel_offsets), self.plan.vectors)
