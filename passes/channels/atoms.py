"""Atoms: one number for every position of every axis of every tensor, and which of them live or die together.

Operators tie atoms (an element-wise addition ties the channels of its operands) and freeze them (what a model returns
must stay). Nothing is solved while a graph is walked: ties are collected as arrays, and the connected components of all
of them are found at once. A component is the smallest thing that can be removed from a network without breaking its
shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

STRUCTURAL = ""
"""Reason of atoms that nobody would think of removing: batch, spatial and kernel positions. Not reported."""


class Role(IntEnum):
    """What a parameter's axis is to the layer that reads it."""

    NONE = 0
    OUTPUT = 1  # the weight's axis of output channels
    INPUT = 2  # the weight's axis of input channels
    SCALE = 3  # a normalization's factor
    SHIFT = 4  # a normalization's offset


@dataclass(frozen=True)
class Components:
    """The solved ties.

    Attributes:
        labels: The component of each atom, int64.
        frozen: For each component whether it must stay, bool.
        why: For each component the index into `reasons` of why it must stay; -1 where it need not or it goes without
            saying.
        reasons: The reasons, sentences.
        roles: The role of each atom, int8.
        producers: The layers that produce channels, in order.
        produced_by: For each component the index into `producers` of the first; -1 where it comes from no layer.
    """

    labels: np.ndarray
    frozen: np.ndarray
    why: np.ndarray
    reasons: list[str]
    roles: np.ndarray
    producers: list[str]
    produced_by: np.ndarray


class Atoms:
    """Collects atoms, ties and freezes."""

    def __init__(self) -> None:
        self._count = 0
        self._left: list[np.ndarray] = []
        self._right: list[np.ndarray] = []
        self._freezes: list[tuple[np.ndarray, int]] = []
        self._reasons: dict[str, int] = {}
        self._known_frozen = np.zeros(1024, bool)
        self._roles = np.zeros(1024, np.int8)
        self._producers: list[str] = []
        self._produced: list[np.ndarray] = []

    def new(self, count: int) -> np.ndarray:
        """`count` fresh atoms, int64."""
        start, self._count = self._count, self._count + count
        if self._count > len(self._roles):
            size = max(self._count, 2 * len(self._roles))
            self._roles = np.concatenate([self._roles, np.zeros(size - len(self._roles), np.int8)])
            self._known_frozen = np.concatenate([self._known_frozen, np.zeros(size - len(self._known_frozen), bool)])
        return np.arange(start, self._count)

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Let each atom of `left` live or die with its counterpart in `right`; the arrays broadcast."""
        if left is right:
            return
        left, right = np.broadcast_arrays(left, right)
        left, right = left.ravel(), right.ravel()
        self._left.append(left)
        self._right.append(right)
        frozen = self._known_frozen[left] | self._known_frozen[right]
        self._known_frozen[left[frozen]] = True
        self._known_frozen[right[frozen]] = True

    def freeze(self, ids: np.ndarray, reason: str = STRUCTURAL) -> None:
        """Keep `ids` and whatever is tied to them."""
        flat = np.asarray(ids).ravel()
        self._freezes.append((flat, self._reasons.setdefault(reason, len(self._reasons))))
        self._known_frozen[flat] = True

    def known_frozen(self, ids: np.ndarray) -> np.ndarray:
        """Which of `ids` are certainly frozen by what has been said so far; later ties may freeze more."""
        return self._known_frozen[ids]

    def mark(self, ids: np.ndarray, role: Role) -> None:
        """Give `ids` a role unless they have one."""
        free = ids[self._roles[ids] == Role.NONE]
        self._roles[free] = role

    def role(self, ids: np.ndarray) -> np.ndarray:
        """The roles of `ids` so far."""
        return self._roles[ids]

    def produced(self, ids: np.ndarray, layer: str) -> None:
        """Say that `layer` produces the channels `ids`."""
        self._producers.append(layer)
        self._produced.append(ids.ravel())

    def solve(self) -> Components:
        """Find the components."""
        if self._left:
            left, right = np.concatenate(self._left), np.concatenate(self._right)
        else:
            left = right = np.zeros(0, np.int64)
        graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(self._count, self._count))
        count, labels = connected_components(graph, directed=False)
        # The first reason that tells something wins over those that go without saying.
        silent = len(self._reasons)
        best = np.full(count, silent + 1)
        if self._freezes:
            ids = np.concatenate([ids for ids, _ in self._freezes])
            index = np.repeat([index for _, index in self._freezes], [len(ids) for ids, _ in self._freezes])
            index[index == self._reasons.get(STRUCTURAL, -1)] = silent
            np.minimum.at(best, labels[ids], index)
        why = np.where(best < silent, best, -1)
        first = np.full(count, len(self._producers))
        if self._produced:
            index = np.repeat(np.arange(len(self._produced)), [len(ids) for ids in self._produced])
            np.minimum.at(first, labels[np.concatenate(self._produced)], index)
        first[first == len(self._producers)] = -1
        return Components(
            labels,
            best <= silent,
            why,
            list(self._reasons),
            self._roles[: self._count].copy(),
            self._producers,
            first,
        )
