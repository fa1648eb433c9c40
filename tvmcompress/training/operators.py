"""The table from operator name to its form in PyTorch.

What an operator computes is what its reference computes (`tvmcompress.passes.reference`), to rounding, and gradients flow
through it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UnsupportedOperatorError
from ..passes._tvm import relax
from ..passes.plugins.registry import Registry
from .backend import Tensor

Value = Any  # a tensor, a tuple of tensors, or a plain Python number or shape


@dataclass(frozen=True)
class Call:
    """What an operator may ask about its call.

    Attributes:
        call: The call itself: static types of arguments and result.
        layer: The name of the variable that it is bound to.
        batch: How many samples are stacked on axis 0 of the values that depend on the inputs, for one in the graph.
    """

    call: relax.Call
    layer: str
    batch: int = 1

    @property
    def attrs(self) -> Any:
        """The operator's attributes."""
        return self.call.attrs

    @property
    def dtype(self) -> str:
        """The dtype of the result."""
        return str(self.call.ty.dtype)

    def out_shape(self, value: Tensor) -> tuple[int, ...]:
        """The result's shape in the graph, with axis 0 stacked as it is in `value`, the call's first argument."""
        shape = tuple(int(dim) for dim in self.call.ty.shape)
        static = math.prod(int(dim) for dim in self.call.args[0].ty.shape)
        if self.batch > 1 and shape and static and value.numel() == static * self.batch:
            return (shape[0] * self.batch, *shape[1:])
        return shape

    def unsupported(self, what: str) -> UnsupportedOperatorError:
        """The error for a variant that the table lacks."""
        return UnsupportedOperatorError(
            f"{self.layer}: there are no gradients for {self.call.op.name} {what}; "
            "choose an importance that needs none, such as output_energy"
        )


Operator = Callable[[Sequence[Value], Call], Value]
"""Given the argument values, which it must not change, and the call; returns the result."""

OPERATORS: Registry[Operator] = Registry("PyTorch form")
"""By the full name of the operator, such as "relax.add"."""

operator = OPERATORS.register


def find_operator(name: str, layer: str) -> Operator:
    """The operator of a name.

    Raises:
        UnsupportedOperatorError: The table has none.
    """
    if name not in OPERATORS:
        raise UnsupportedOperatorError(
            f"{layer}: there are no gradients for {name or 'a call of a function'}; "
            "choose an importance that needs none, such as output_energy"
        )
    return OPERATORS[name]


def along(vector: Tensor, axis: int, rank: int) -> Tensor:
    """A vector in the shape in which it broadcasts along one axis of a tensor of this rank."""
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)
