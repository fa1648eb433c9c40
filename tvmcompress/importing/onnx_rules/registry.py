"""One ONNX node that becomes Relax, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ...passes._tvm import Constant, relax
from ...passes.graph.module_params import static_shape
from ...passes.plugins.registry import Registry


def constant(value: np.ndarray) -> relax.Expr:
    """A constant of the array's own dtype; Relax would make numbers of 64 bits ones of 32."""
    return relax.const(np.asarray(value), np.asarray(value).dtype.name)


class CannotImportError(Exception):
    """A node cannot be imported; the message completes the sentence 'node ... cannot be imported: ...'."""


@dataclass
class Node:
    """A node with its operands.

    Attributes:
        kind: The operator.
        inputs: Its operands; None where one is left out.
        options: Its attributes as plain values.
        outputs: The names of its results; empty where nobody reads one.
        opset: The version of ONNX's operators.
        builder: Where intermediate values are bound.
        weights: The values of the parameters among the operands, by name.
    """

    kind: str
    inputs: Sequence[relax.Expr | None]
    options: Mapping[str, Any]
    outputs: Sequence[str]
    opset: int
    builder: relax.BlockBuilder
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    def given(self, index: int) -> bool:
        """Whether operand `index` is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def operand(self, index: int) -> relax.Expr:
        """Operand `index`."""
        expr = self.inputs[index] if index < len(self.inputs) else None
        if expr is None:
            raise CannotImportError(f"its operand {index} is missing")
        return expr

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of operand `index`."""
        return static_shape(self.operand(index))

    def dtype(self, index: int = 0) -> str:
        """The dtype of operand `index`."""
        return str(self.operand(index).ty.dtype)

    def value(self, index: int) -> np.ndarray | None:
        """The value of operand `index`; None where it is left out or computed at run time."""
        return self.value_of(self.inputs[index]) if self.given(index) else None

    def value_of(self, expr: relax.Expr) -> np.ndarray | None:
        """The value of a constant or weight."""
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return self.weights.get(expr.name) if isinstance(expr, relax.Var) else None

    def integers(self, index: int, what: str) -> list[int] | None:
        """Operand `index` as a list of integers; None where it is left out.

        Raises:
            CannotImportError: It is computed at run time.
        """
        if not self.given(index):
            return None
        value = self.value(index)
        if value is None:
            raise CannotImportError(f"its {what} must be constant, not computed at run time")
        return [int(entry) for entry in value.reshape(-1)]

    def axes(self, index: int = 1) -> list[int] | None:
        """The axes that an operand or the attribute `axes` names, counted from the front; None where none are named."""
        named = self.integers(index, "axes")
        if named is None and "axes" in self.options:
            named = [int(axis) for axis in self.options["axes"]]
        return None if named is None else [axis % len(self.shape()) for axis in named]

    def axis(self, default: int) -> int:
        """The attribute `axis`, counted from the front."""
        return int(self.options.get("axis", default)) % max(len(self.shape()), 1)

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        value = self.options.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def emit(self, expr: relax.Expr) -> relax.Expr:
        """Bind an intermediate value."""
        return self.builder.emit(expr)

    def call(self, make: Callable[..., relax.Expr], *arguments: Any) -> relax.Expr:
        """Bind the call that `make` gives, an intermediate value."""
        return self.builder.emit(make(*arguments))

    def cast(self, expr: relax.Expr, dtype: str) -> relax.Expr:
        """A value in a dtype."""
        return expr if str(expr.ty.dtype) == dtype else self.call(relax.op.astype, expr, dtype)

    def scalar(self, value: float, dtype: str | None = None) -> relax.Expr:
        """A number of the dtype of the first operand, or of another."""
        return constant(np.asarray(value, dtype or self.dtype()))


Result: TypeAlias = relax.Expr | Sequence[relax.Expr] | None
Rule = Callable[[Node], Result]
"""Gives the call for the node, a list where it has several results, None where TVM's own conversion serves, and raises
`CannotImportError` where nothing does."""

RULES: Registry[Rule] = Registry("operator of ONNX")

onnx_op = RULES.register
