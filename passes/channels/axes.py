"""The atoms of a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True)
class Axes:
    """The atoms of one tensor, axis by axis.

    Attributes:
        ids: For each axis the atoms of its positions, int64.
        zero: For each axis and position whether the tensor is zero there once the position's unit has all its
            parameters zeroed, bool. Removing a unit then equals zeroing it even where no weight reads the position, as
            in a sum over channels or a product of two activations.
    """

    ids: tuple[np.ndarray, ...]
    zero: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape before anything is removed."""
        return tuple(len(ids) for ids in self.ids)

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids, zero) of each axis."""
        return list(zip(self.ids, self.zero))

    def without_zero(self) -> Axes:
        """The same atoms, nothing known to be zero."""
        return replace(self, zero=tuple(np.zeros(len(ids), bool) for ids in self.ids))

    def with_axis(self, axis: int, ids: np.ndarray, zero: np.ndarray) -> Axes:
        """The same but for one axis."""
        pairs = self.pairs()
        pairs[axis] = (ids, zero)
        return from_pairs(pairs)


Value: TypeAlias = "Axes | list[Value] | None"
"""What is known of an expression: a tensor's axes, a tuple's fields, or None for what is no tensor of known shape."""


def from_pairs(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Axes:
    """Axes from (ids, zero) of each axis."""
    return Axes(tuple(ids for ids, _ in pairs), tuple(zero for _, zero in pairs))


def tensors(value: Value) -> Iterator[Axes]:
    """The tensors in a value, tuples opened."""
    if isinstance(value, Axes):
        yield value
    elif isinstance(value, list):
        for field in value:
            yield from tensors(field)
