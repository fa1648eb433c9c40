"""Ways to multiply a tile of pixels with a tile of output channels, by what the core has for it.

A step takes some bytes of every pixel's receptive field and the same bytes of every channel's weights. All ways read weights in
the order in which they are packed here.

- `Dot` (SDOT, Armv8.2): a vector of sums holds four channels of one pixel. An instruction multiplies four bytes of a pixel, "by
  element", with those of four channels: 16 products.
- `Pairs` (SMULL, SMLAL2, SADALP, Armv8.0): a vector of sums holds four parts of the sum of one channel and pixel, which are
  added up at the end: 16 products in three instructions. Two products of bytes fit 16 bits unless both weights are -128.
- `Matrix` (SMMLA, Armv8.6): a vector of sums holds two pixels by two channels; an instruction takes eight bytes of each: 32
  products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import codegen

from ...kernels.vectors import VECTOR, as_words
from .neon import addp, high, low, quad, saddlp, sdot, shuffled, smmla, smull

Vectors = list["tirx.PrimExpr"]


_MOST = 26
"""Registers for sums and data; with more LLVM 22 spills, since it keeps weights and loads ahead."""


class Products(ABC):
    """A way to multiply.

    Attributes:
        granule: Bytes of a receptive field that are taken at a time, at least.
        unroll: Steps in a round of the inner loop: a few hundred instructions.
        dot: Whether the core has SDOT.
        by_channel: Whether a vector of sums holds four channels of a pixel, so that sums may start at the biases.
    """

    granule: int
    unroll = 4
    dot = True
    by_channel = False

    @property
    def name(self) -> str:
        """What it is called in workloads."""
        return type(self).__name__.lower()

    @abstractmethod
    def sums(self, pixels: int, vectors: int) -> int:
        """Vectors of sums of a tile of pixels by `vectors` times four channels."""

    @abstractmethod
    def fits(self, pixels: int, vectors: int) -> bool:
        """Whether the registers hold a tile."""

    @abstractmethod
    def cost(self, pixels: int, vectors: int, size: int) -> float:
        """Instructions of a step of `size` bytes."""

    @property
    def end_cost(self) -> float:
        """Instructions for each pixel and four channels besides the epilogue."""
        return 0

    @abstractmethod
    def pack(self, weights: np.ndarray) -> np.ndarray:
        """The weights of a step, (channels, size) int8, size a multiple of `granule` up to 16, as they are read; flat."""

    @abstractmethod
    def step(self, acc: tirx.Buffer, data: Vectors, weights: Vectors, size: int) -> None:
        """Statements that add a step to the sums, in an order in which no weights are kept.

        Args:
            acc: int32x4, as many as `sums`.
            data: int8x16 of each pixel.
            weights: int8x16, as packed.
            size: Bytes.
        """

    @abstractmethod
    def finish(self, acc: Vectors, pixels: int, vectors: int) -> Vectors:
        """int32x4 of four channels each; those of a pixel behind one another."""


@dataclass(frozen=True)
class Dot(Products):
    """SDOT by element."""

    granule = 4
    by_channel = True

    def sums(self, pixels: int, vectors: int) -> int:
        return pixels * vectors

    def fits(self, pixels: int, vectors: int) -> bool:
        return pixels * vectors + pixels <= _MOST and vectors * pixels <= 16

    def cost(self, pixels: int, vectors: int, size: int) -> float:
        return pixels + size / 4 * vectors * (pixels + 0.5)

    def pack(self, weights: np.ndarray) -> np.ndarray:
        vectors, size = len(weights) // 4, weights.shape[1]
        return weights.reshape(vectors, 4, size // 4, 4).transpose(2, 0, 1, 3).ravel()

    def step(self, acc: tirx.Buffer, data: Vectors, weights: Vectors, size: int) -> None:
        vectors = int(acc.shape[0]) // len(data)
        for k in range(size // 4):
            for p, x in enumerate(data):
                for v in range(vectors):
                    at = p * vectors + v
                    T.buffer_store(acc, sdot(acc[at], weights[k * vectors + v], quad(as_words(x), k)), [at])

    def finish(self, acc: Vectors, pixels: int, vectors: int) -> Vectors:
        return list(acc)


@dataclass(frozen=True)
class Pairs(Products):
    """SMULL, SMLAL2 and SADALP.

    Attributes:
        whole: Whether both factors may be -128, so that SADALP must follow each product.
    """

    whole: bool = False
    granule = 8
    dot = False
    # In longer rounds LLVM adds up the products of all steps at the end, and spills them.
    unroll = 2

    @property
    def name(self) -> str:
        """What it is called in workloads."""
        return "pairs_of_all" if self.whole else "pairs"

    def sums(self, pixels: int, vectors: int) -> int:
        return pixels * vectors * 4

    def fits(self, pixels: int, vectors: int) -> bool:
        return self.sums(pixels, vectors) + pixels <= _MOST - 4

    def cost(self, pixels: int, vectors: int, size: int) -> float:
        return pixels + 2 * vectors + pixels * vectors * 4 * ((4 if self.whole else 3) if size > 8 else 2)

    @property
    def end_cost(self) -> float:
        return 4

    def pack(self, weights: np.ndarray) -> np.ndarray:
        return weights.ravel()

    def step(self, acc: tirx.Buffer, data: Vectors, weights: Vectors, size: int) -> None:
        channels = int(acc.shape[0]) // len(data)
        for j in range(channels):
            w = weights[j] if size > 8 else shuffled([weights[j // 2]], range(8 * (j % 2), 8 * (j % 2) + 8))
            for p, x in enumerate(data):
                products = [smull(low(x, 8), low(w, 8) if size > 8 else w)]
                if size > 8:
                    products.append(smull(high(x, 8), high(w, 8)))
                at = p * channels + j
                for value in products if self.whole else [sum(products[1:], products[0])]:
                    T.buffer_store(acc, acc[at] + saddlp(value), [at])

    def finish(self, acc: Vectors, pixels: int, vectors: int) -> Vectors:
        return [addp(addp(*acc[i : i + 2]), addp(*acc[i + 2 : i + 4])) for i in range(0, len(acc), 4)]


@dataclass(frozen=True)
class Matrix(Products):
    """SMMLA."""

    granule = 8

    def sums(self, pixels: int, vectors: int) -> int:
        return -(-pixels // 2) * vectors * 2

    def fits(self, pixels: int, vectors: int) -> bool:
        return self.sums(pixels, vectors) + pixels <= _MOST

    def cost(self, pixels: int, vectors: int, size: int) -> float:
        blocks = self.sums(pixels, vectors)
        return pixels + (blocks + vectors + -(-pixels // 2)) * (size / 8)

    @property
    def end_cost(self) -> float:
        return 1

    def pack(self, weights: np.ndarray) -> np.ndarray:
        pairs, size = len(weights) // 2, weights.shape[1]
        return weights.reshape(pairs, 2, size // 8, 8).transpose(2, 0, 1, 3).ravel()

    def step(self, acc: tirx.Buffer, data: Vectors, weights: Vectors, size: int) -> None:
        rows = -(-len(data) // 2)
        pairs = int(acc.shape[0]) // rows
        for k in range(size // 8):
            for r in range(rows):
                one, other = data[2 * r], data[min(2 * r + 1, len(data) - 1)]
                both = shuffled([one, other], [*range(8 * k, 8 * k + 8), *range(VECTOR + 8 * k, VECTOR + 8 * k + 8)])
                for j in range(pairs):
                    at = r * pairs + j
                    T.buffer_store(acc, smmla(acc[at], both, weights[k * pairs + j]), [at])

    def finish(self, acc: Vectors, pixels: int, vectors: int) -> Vectors:
        values = []
        for p in range(pixels):
            row = acc[p // 2 * 2 * vectors :][: 2 * vectors]
            lanes = [2 * (p % 2), 2 * (p % 2) + 1]
            values += [shuffled(row[j : j + 2], [*lanes, *(4 + lane for lane in lanes)]) for j in range(0, 2 * vectors, 2)]
        return values


def products_of(target: dict[str, Any]) -> Products:
    """The best way of a core to multiply, by the features that LLVM knows of it.

    Args:
        target: The TVM target, with `mcpu`, and `mattr` where features differ from the core's.
    """
    tvm_target = tvm.target.Target(target)

    def has(feature: str) -> bool:
        return bool(codegen.target_has_features(feature, tvm_target))

    if has("i8mm"):
        return Matrix()
    return Dot() if has("dotprod") else Pairs()
