"""The table of operators: for each, how its atoms hang together and how its call is rebuilt once some are gone.

An operator is taught by one function from a `Flow`, which ties and freezes the atoms of the operands and returns those
of the result. Where the call carries numbers that depend on the removed positions (a reshape's shape, a convolution's
groups) a second function from a `Site` makes the new call; elsewhere the call is kept and only its arguments are
replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._tvm import Constant, relax, tirx, tvm
from ..plugins.registry import Registry
from .atoms import STRUCTURAL, Atoms, Role
from .axes import Axes, Value, from_pairs


class NotCovered(Exception):
    """A rule meets a case that it does not describe; the sentence becomes the reason why the operands are frozen."""


@dataclass
class Flow:
    """One call while atoms flow through the graph.

    Attributes:
        name: The variable that the call is bound to.
        call: The call.
        operands: What is known of each argument.
        atoms: Where ties and freezes go.
        preferred_splits: Where a reshape splits an axis, the sizes of parts that shall carry the removal.
    """

    name: str
    call: relax.Call
    operands: Sequence[Value]
    atoms: Atoms
    preferred_splits: frozenset[int] = frozenset()

    @property
    def attrs(self) -> Any:
        """The operator's attributes."""
        return self.call.attrs

    @property
    def out_shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return tuple(int(dim) for dim in self.call.ty.shape)

    def operand(self, index: int) -> Axes:
        """The axes of an argument that is a tensor."""
        value = self.operands[index]
        if not isinstance(value, Axes):
            raise NotCovered(f"an argument of {self.name} is not a tensor of known shape")
        return value

    def fields(self, index: int) -> list[Axes]:
        """The axes of the tensors in an argument that is a tuple."""
        value = self.operands[index]
        if not isinstance(value, list) or not all(isinstance(field, Axes) for field in value):
            raise NotCovered(f"an argument of {self.name} is not a tuple of tensors of known shape")
        return value  # type: ignore[return-value]

    def constant(self, index: int) -> np.ndarray | None:
        """The value of an argument that is an inline constant or a number; otherwise None."""
        return constant_value(self.call.args[index]) if index < len(self.call.args) else None

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """See `Atoms.tie`."""
        self.atoms.tie(left, right)

    def freeze(self, ids: np.ndarray, reason: str = STRUCTURAL) -> None:
        """See `Atoms.freeze`."""
        self.atoms.freeze(ids, reason)

    def frozen(self, ids: np.ndarray) -> bool:
        """Whether all of `ids` are already known to stay."""
        return bool(self.atoms.known_frozen(ids).all())

    def mark(self, ids: np.ndarray, role: Role) -> None:
        """Say what a weight's axis is to this layer; the first word on it stays."""
        self.atoms.mark(ids, role)
        if role == Role.OUTPUT:
            self.atoms.produced(ids, self.name)

    def is_produced(self, ids: np.ndarray) -> bool:
        """Whether any of `ids` is an output channel of a layer."""
        return bool((self.atoms.role(ids) == Role.OUTPUT).any())

    def live(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Fresh positions that may be removed, not known to be zero then."""
        return self.atoms.new(count), np.zeros(count, bool)

    def fixed(self, count: int, reason: str = STRUCTURAL) -> tuple[np.ndarray, np.ndarray]:
        """Fresh positions that stay."""
        ids = self.atoms.new(count)
        self.atoms.freeze(ids, reason)
        return ids, np.zeros(count, bool)

    def fixed_like(self, shape: Sequence[int], reason: str = STRUCTURAL) -> Axes:
        """A tensor none of whose positions may be removed."""
        return from_pairs([self.fixed(dim, reason) for dim in shape])

    def contract(self, left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> None:
        """Sum over the product of two axes: they are tied, and where neither operand vanishes they stay."""
        self.tie(left[0], right[0])
        unsafe = ~(left[1] | right[1])
        if unsafe.any():
            self.freeze(left[0][unsafe], f"{self.name} sums over it and neither operand is zero where it is removed")


@dataclass
class Site:
    """One call while the graph is rebuilt.

    Attributes:
        call: The old call.
        args: Its arguments in the new function, constants already cut.
        operands: What is known of each argument.
        result: What is known of the result.
        kept: The positions of an axis that stay, given its atoms.
        emit: Binds an intermediate expression.
    """

    call: relax.Call
    args: list[relax.Expr]
    operands: Sequence[Value]
    result: Value
    kept: Callable[[np.ndarray], np.ndarray]
    emit: Callable[[relax.Expr], relax.Var]

    @property
    def attrs(self) -> Any:
        """The operator's attributes."""
        return self.call.attrs

    def operand(self, index: int) -> Axes:
        """The axes of an argument that the rule has seen as a tensor."""
        value = self.operands[index]
        assert isinstance(value, Axes)
        return value

    def axes(self) -> Axes:
        """The axes of the result, a tensor."""
        assert isinstance(self.result, Axes)
        return self.result

    def shape(self, axes: Axes) -> list[int]:
        """A tensor's shape after the removal."""
        return [len(self.kept(ids)) for ids in axes.ids]

    def same(self) -> relax.Expr:
        """The call with its new arguments."""
        return relax.Call(self.call.op, self.args, self.call.attrs, self.call.ty_args)

    def with_attrs(self, **changes: object) -> relax.Expr:
        """The call with its new arguments and other attributes."""
        info = type(self.attrs).__tvm_ffi_type_info__
        values = {field.name: getattr(self.attrs, field.name) for field in info.fields} | changes
        attrs = tvm.ir.make_node(info.type_key, **values)
        return relax.Call(self.call.op, self.args, attrs, self.call.ty_args)

    def select(self, expr: relax.Expr, axis: int, size: int, positions: np.ndarray) -> relax.Expr:
        """`expr`, which has `size` positions along `axis`, with only `positions`, in their order."""
        steps = np.unique(np.diff(positions))
        if len(positions) == size and len(steps) <= 1 and positions[0] == 0 and (size == 1 or steps[0] == 1):
            return expr
        if len(steps) <= 1 and (len(positions) == 1 or steps[0] > 0):
            step = int(steps[0]) if len(steps) else 1
            return relax.op.strided_slice(expr, [axis], [int(positions[0])], [int(positions[-1]) + 1], [step])
        return relax.op.take(expr, relax.const(positions.astype("int64")), axis=axis)


Propagate = Callable[[Flow], Value]
Rebuild = Callable[[Site], relax.Expr]


@dataclass(frozen=True)
class Rule:
    """What is known of an operator."""

    propagate: Propagate
    rebuild: Rebuild | None = None


RULES: Registry[Rule] = Registry("channel rule")
"""By the full name of the operator, such as "relax.add"."""


def rule(*names: str, rebuild: Rebuild | None = None) -> Callable[[Propagate], Propagate]:
    """Register the decorated function as the rule of the operators `names`."""

    def register(propagate: Propagate) -> Propagate:
        RULES.register(*names)(Rule(propagate, rebuild))
        return propagate

    return register


def constant_value(expr: relax.Expr) -> np.ndarray | None:
    """The value of an inline constant or number; otherwise None."""
    if isinstance(expr, Constant):
        return expr.value.numpy()
    if isinstance(expr, (tirx.IntImm, tirx.FloatImm)):
        return np.asarray(expr.value)
    return None


def ints(values: Any) -> list[int]:
    """An attribute or tuple argument of integers, as Python integers."""
    if isinstance(values, relax.Tuple):
        values = values.fields
    if isinstance(values, (int, tirx.IntImm)):
        return [int(values)]
    return [int(value) for value in values]


def axis_in(layout: object, letter: str) -> int:
    """Where a layout has an axis.

    Raises:
        NotCovered: The layout is blocked, or lacks the axis.
    """
    text = str(layout)
    if not text.isalpha() or not text.isupper() or letter not in text:
        raise NotCovered(f"the layout {text} is not covered")
    return text.index(letter)
