"""The table from operator name to its NumPy meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import relax

Value = Any  # an array, a tuple of arrays, or a plain Python number or shape


@dataclass(frozen=True)
class Context:
    """What a meaning may ask about its call.

    Attributes:
        call: The call itself: static types of arguments and result.
        batch: How many samples are stacked on axis 0 of the values that depend on the inputs, for one in the graph.
    """

    call: relax.Call
    batch: int = 1

    @property
    def attrs(self) -> Any:
        """The operator's attributes."""
        return self.call.attrs

    def out_shape(self, value: np.ndarray) -> tuple[int, ...]:
        """The result's shape in the graph, with axis 0 stacked as it is in `value`, the call's first argument."""
        shape = tuple(int(dim) for dim in self.call.ty.shape)
        static = int(np.prod([int(dim) for dim in self.call.args[0].ty.shape]))
        if self.batch > 1 and shape and static and value.size == static * self.batch:
            return (shape[0] * self.batch, *shape[1:])
        return shape


Meaning = Callable[[Sequence[Value], Context], Value]
_MEANINGS: dict[str, Meaning] = {}


def register_meaning(*names: str) -> Callable[[Meaning], Meaning]:
    """Register a function as the meaning of the operators `names` (full names, such as "relax.add").

    The function is given the argument values and a `Context` and returns the result; it must not change its arguments.
    """

    def register(meaning: Meaning) -> Meaning:
        for name in names:
            _MEANINGS[name] = meaning
        return meaning

    return register


def meaning_of(name: str) -> Meaning | None:
    """The meaning of an operator, or None when the table has none."""
    return _MEANINGS.get(name)


def ints(values: Any) -> list[int]:
    """An attribute that is a list of integers, as Python integers."""
    return [int(value) for value in values]
