"""The table from operator name to its reference implementation in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import relax
from ..plugins.registry import Registry

Value = Any  # an array, a tuple of arrays, or a plain Python number or shape


@dataclass(frozen=True)
class Context:
    """What a reference implementation may ask about its call.

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


Reference = Callable[[Sequence[Value], Context], Value]
"""Given the argument values, which it must not change, and the call's context; returns the result."""

REFERENCES: Registry[Reference] = Registry("reference implementation")
"""By the full name of the operator, such as "relax.add"."""

register_reference = REFERENCES.register
reference_of = REFERENCES.get


def ints(values: Any) -> list[int]:
    """An attribute that is a list of integers, as Python integers."""
    return [int(value) for value in values]
