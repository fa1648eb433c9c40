"""Carrying a graph over from channels-first to channels-last: which form each tensor is in, and how one becomes another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.module_params import static_shape
from ..graph.rebuild import Rebuilder, bindings
from ..plugins.registry import Registry

# Tensors of these ranks may be images with their channels first: signals, pictures, volumes.
RANKS = (3, 4, 5)


@dataclass(frozen=True)
class Form:
    """How the elements of a tensor lie in memory, compared with the graph that is converted.

    Attributes:
        kind: "same"; "last" for a tensor with its channels, axis 1, moved behind all other axes: NCHW as NHWC; "flat" for a
            flattened image whose elements are in that order.
        image: For "flat" the (C, H, W) of the image; fewer or more axes for signals and volumes.
    """

    kind: str
    image: tuple[int, ...] | None = None


SAME, LAST = Form("same"), Form("last")


def to_last(rank: int) -> tuple[int, ...]:
    """The order of axes that moves the channels of a tensor behind all other axes."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """The order of axes that moves them back."""
    return (0, rank - 1, *range(1, rank - 1))


def layout_name(rank: int, last: bool = True) -> str:
    """The name of the layout of a signal, image or volume: NWC, NHWC, NDHWC, or with its channels first."""
    axes = "DHW"[5 - rank :]
    return f"N{axes}C" if last else f"NC{axes}"


class Converter:
    def __init__(self, mod: tvm.IRModule, keep: Collection[str] = ()) -> None:
        self.keep = {f"relax.{name}" for name in keep}
        self.build = Rebuilder(mod)
        self.values = dict(bindings(self.build.source))
        # What exists of each variable of the old function, and in which form it was computed.
        self.made: dict[relax.Var, dict[Form, relax.Expr]] = {}
        self.native: dict[relax.Var, Form] = {}
        self.taken: dict[str, np.ndarray] = {}

    def run(self) -> tvm.IRModule:
        for var, value in bindings(self.build.source):
            if isinstance(value, relax.Var) or self._is_dequantized_constant(value):
                # A mere name is looked through; a constant is made when it is read, in the form in which it is read.
                continue
            new, form = self._convert(var, value)
            if not isinstance(new, (relax.Var, Constant)):
                new = self.build.emit(new, var.name)
            self.native[var] = form
            self.made[var] = {form: new}
        return self.build.finish(self.original(self.build.source.body.body))

    # Reading

    def form_of(self, expr: relax.Expr) -> Form:
        """The form that an operand was computed in; parameters, inputs and constants are as they were."""
        expr = self._named(expr)
        return self.native.get(expr, SAME) if isinstance(expr, relax.Var) else SAME

    def _named(self, expr: relax.Expr) -> relax.Expr:
        """What a variable that is only another name stands for."""
        while isinstance(expr, relax.Var) and isinstance(self.values.get(expr), relax.Var):
            expr = self.values[expr]
        return expr

    def get(self, expr: relax.Expr, form: Form) -> relax.Expr:
        """An operand of the old function in a form, converted if need be."""
        expr = self._named(expr)
        if self.build.param_value(expr) is not None:
            return self._constant(expr, form)
        if not isinstance(expr, relax.Var):
            return self.build.get(expr)
        if expr not in self.made:
            lazy = self._is_dequantized_constant(self.values.get(expr))
            self.made[expr] = {} if lazy else {SAME: self.build.get(expr)}
        made = self.made[expr]
        if form not in made:
            made[form] = self._converted(expr, form)
        return made[form]

    def _is_dequantized_constant(self, value: relax.Expr | None) -> bool:
        return is_decoding(value) and self.build.param_value(value.args[0]) is not None

    def original(self, expr: relax.Expr) -> relax.Expr:
        """An operand as it was in the old function."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.original(field) for field in expr.fields])
        if isinstance(expr, relax.Var):
            return self.get(expr, SAME)
        return self.build.get(expr)

    def _constant(self, expr: relax.Expr, form: Form) -> relax.Expr:
        """A parameter or constant, with its channels last if `form` says so."""
        value = self.build.param_value(expr)
        assert value is not None
        moves = form == LAST and value.ndim in RANKS
        return self.permuted(expr, value.transpose(to_last(value.ndim)) if moves else value)

    def permuted(self, expr: relax.Expr, value: np.ndarray) -> relax.Expr:
        """A parameter or constant with another value under its old name."""
        name = self.build.param_name(expr)
        if name is None:
            return relax.const(np.array(value, order="C"))
        unique, count = name, 1
        while unique in self.taken and not _equal(self.taken[unique], value):
            unique, count = f"{name}.{count}", count + 1
        self.taken[unique] = value
        return self.build.param(unique, np.array(value, order="C"))

    def _converted(self, var: relax.Var, form: Form) -> relax.Expr:
        source = self.values.get(var)
        if is_call(source, "dequantize"):
            dequantized = self._converted_integers(source, form)
            if dequantized is not None:
                return self.build.emit(dequantized, var.name)
        if is_decoding(source) and var not in self.native:
            return self.build.emit(relax.op.astype(self.get(source.args[0], form), "float32"), var.name)
        x, native, stem = self.made[var][self.form_of(var)], self.form_of(var), _stem(var)
        rank = len(static_shape(var))
        if native == SAME and form == LAST:
            return self.build.emit(permute(x, to_last(rank)), f"{stem}.permuted")
        if native == LAST and form == SAME:
            return self.build.emit(permute(x, to_first(rank)), f"{stem}.permuted")
        if native.image is not None and form == SAME:
            channels, *spatial = native.image
            shape = static_shape(var)
            image = self.build.emit(relax.op.reshape(x, (shape[0], *spatial, channels)), f"{stem}.image")
            moved = self.build.emit(permute(image, to_first(len(spatial) + 2)), f"{stem}.permuted")
            return self.build.emit(relax.op.reshape(moved, shape), f"{stem}.flat")
        raise ValueError(f"{var.name} cannot be converted from {native} to {form}")

    def _converted_integers(self, source: relax.Call, form: Form) -> relax.Expr | None:
        """The result of a dequantization in another form: its integers are converted, not its real values."""
        integers, scale, zero = source.args
        axis = int(source.attrs.axis)
        if not is_single(scale):
            if self.build.param_value(integers) is None:
                return None
            rank = len(static_shape(integers))
            axis = to_last(rank).index(axis % rank) if form == LAST else axis
        moved = self.get(integers, form)
        return relax.op.dequantize(moved, self.build.get(scale), self.build.get(zero), axis=axis)

    # Converting

    def _convert(self, var: relax.Var, value: relax.Expr) -> tuple[relax.Expr, Form]:
        if isinstance(value, relax.TupleGetItem):
            form = self.form_of(value.tuple_value)
            return relax.TupleGetItem(self.get(value.tuple_value, form), value.index), form
        if isinstance(value, relax.Call):
            name = getattr(value.op, "name", "")
            rule = None if name in self.keep else RULES.get(name)
            converted = rule(self, value) if rule is not None else None
            if converted is not None:
                return converted
            return relax.Call(value.op, [self.original(a) for a in value.args], value.attrs, value.ty_args), SAME
        return self.original(value), SAME


Rule = Callable[[Converter, relax.Call], "tuple[relax.Expr, Form] | None"]
"""Gives the new value and its form, or None to leave the call in its own layout."""

RULES: Registry[Rule] = Registry("layout rule", prefix="relax.")
"""By the full name of the operator; `layout_rule` takes names without their prefix."""

layout_rule = RULES.register


def is_call(expr: relax.Expr | None, name: str) -> TypeGuard[Any]:
    """Whether an expression is a call of a Relax operator, named without its prefix."""
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == f"relax.{name}"


def is_decoding(expr: relax.Expr | None) -> TypeGuard[Any]:
    """Whether an expression makes real numbers from how they are stored: integers, or float16."""
    halves = is_call(expr, "astype") and str(expr.args[0].ty.dtype) == "float16"
    return halves or is_call(expr, "dequantize")


def is_single(expr: relax.Expr) -> bool:
    """Whether a tensor has one element."""
    return all(dim == 1 for dim in static_shape(expr))


def permute(x: relax.Expr, axes: Sequence[int]) -> relax.Expr:
    """A permutation of axes; a mere reshape where it moves nothing in memory."""
    shape = static_shape(x)
    order = [axis for axis in axes if shape[axis] != 1]
    if order == sorted(order):
        return relax.op.reshape(x, tuple(shape[axis] for axis in axes))
    return relax.op.permute_dims(x, list(axes))


def _stem(var: relax.Var) -> str:
    return var.name.removesuffix(".dequantized").removesuffix(".quantized")


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)
