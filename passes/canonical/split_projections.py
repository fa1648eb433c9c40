"""A fused projection is split where it is made, not where it is used.

Transformers compute queries, keys and values by one matrix product and take them apart after a reshape to
(..., 3, heads, width) and a transposition. Read literally, position k of every query, key and value is one slice of one
tensor and can only be removed together. Split at once,

    q, k, v = split(x @ w, 3);  q = permute(reshape(q, (..., heads, width)))

values, and queries with keys, have widths of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.adopt_module import model_pass
from ..graph.module_params import static_shape
from ..graph.rebuild import DROP, Drop, Rebuilder, rebuild
from ..graph.view import GraphView


@model_pass("SplitProjections")
class SplitProjections:
    """Move splits in front of the reshape and transposition before them, where they cut the outermost part of one axis."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        found = _find(GraphView(mod))
        heads = {fused.reshape: fused for fused in found}
        inner = {var for fused in found for var in fused.inner}
        selections = {var: (fused, selection) for fused in found for var, selection in fused.selections.items()}
        pieces: dict[relax.Var, relax.Var] = {}

        def rewrite(build: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | Drop | None:
            if var in heads:
                fused = heads[var]
                source = build.get(fused.source)
                pieces[var] = build.emit(relax.op.split(source, fused.parts, fused.axis), f"{source.name}.split")
                return DROP
            if var in inner:
                return DROP
            if var in selections:
                fused, selection = selections[var]
                return fused.piece(build, pieces[fused.reshape], selection)
            return None

        return rebuild(mod, rewrite) if found else mod


@dataclass(frozen=True)
class _Selection:
    """One part: its index, and whether the axis of parts stays, of size one."""

    index: int
    keeps_axis: bool


@dataclass(eq=False)
class _Fused:
    """A reshape that splits `axis` of `source` into `parts` and more, what moves the axes, and what selects parts.

    Attributes:
        reshape: The result of the reshape.
        source: What is reshaped.
        axis: Its axis that is split; the parts lie along the same axis of the result.
        parts: How many parts there are.
        shape: The shape of the result.
        moves: What follows: calls that permute axes, or add and drop axes of size one.
        place: Where the axis of parts is behind the moves.
        inner: The variables of the moves, and of a split.
        selections: What is selected, by the variable of each selection.
    """

    reshape: relax.Var
    source: relax.Var
    axis: int
    parts: int
    shape: tuple[int, ...]
    moves: list[tuple[relax.Call, int]] = field(default_factory=list)
    place: int = 0
    inner: list[relax.Var] = field(default_factory=list)
    selections: dict[relax.Var, _Selection] = field(default_factory=dict)

    def piece(self, build: Rebuilder, split: relax.Var, selection: _Selection) -> relax.Expr:
        """One part, as its reader wants it."""
        part = build.emit(relax.TupleGetItem(split, selection.index), f"{split.name}.part{selection.index}")
        result = relax.op.reshape(part, _single(self.shape, self.axis))
        for call, place in self.moves:
            moved = build.emit(result, f"{part.name}.moved")
            if call.op.name == "relax.reshape":
                result = relax.op.reshape(moved, _single(static_shape(call), place))
            else:
                result = relax.Call(call.op, [moved], call.attrs, call.ty_args)
        if selection.keeps_axis:
            return result
        return relax.op.squeeze(build.emit(result, f"{part.name}.moved"), [self.place])


def _single(shape: tuple[int, ...], axis: int) -> list[int]:
    """The shape of one part."""
    return [1 if index == axis else size for index, size in enumerate(shape)]


def _find(graph: GraphView) -> list[_Fused]:
    found = []
    for var, value in graph.values.items():
        fused = _splitting_reshape(var, value)
        if fused is None:
            continue
        last, fused.place = var, fused.axis
        while (reader := graph.sole_reader(last)) is not None:
            follower, call = reader
            place = _moved(call, fused.place)
            if place is None:
                break
            fused.moves.append((call, place))
            fused.inner.append(follower)
            last, fused.place = follower, place
        if _select(fused, last, graph):
            found.append(fused)
    return found


def _splitting_reshape(var: relax.Var, value: relax.Expr) -> _Fused | None:
    """A reshape that only splits one axis behind the batch, into two or more parts."""
    if not isinstance(value, relax.Call) or value.op.name != "relax.reshape" or not isinstance(value.args[0], relax.Var):
        return None
    try:
        old, new = static_shape(value.args[0]), static_shape(value)
    except ValueError:
        return None
    extra = len(new) - len(old)
    if extra < 1:
        return None
    for axis, size in enumerate(old):
        factors = new[axis : axis + extra + 1]
        fits = new[:axis] == old[:axis] and new[axis + extra + 1 :] == old[axis + 1 :]
        if axis > 0 and fits and int(np.prod(factors)) == size and factors[0] > 1:
            return _Fused(var, value.args[0], axis, factors[0], new)
    return None


def _moved(call: relax.Call, place: int) -> int | None:
    """Where an axis goes that has several positions; None where the call does more than to move axes."""
    try:
        old, new = static_shape(call.args[0]), static_shape(call)
    except (ValueError, IndexError):
        return None
    if call.op.name == "relax.permute_dims":
        axes = call.attrs.axes
        order = list(range(len(old)))[::-1] if axes is None else [int(axis) % len(old) for axis in axes]
        return order.index(place)
    dropping_all = call.op.name == "relax.squeeze" and call.attrs.axis is None
    if call.op.name not in ("relax.expand_dims", "relax.squeeze", "relax.reshape") or dropping_all:
        return None
    wide, moved = ([axis for axis, size in enumerate(shape) if size != 1] for shape in (old, new))
    if [old[axis] for axis in wide] != [new[axis] for axis in moved]:
        return None
    return moved[wide.index(place)]


def _select(fused: _Fused, last: relax.Var, graph: GraphView) -> bool:
    """Whether everything that reads the tensor selects parts; records what does."""
    reading = graph.readers.get(last, [])
    for var in reading:
        call = graph.call(var)
        if call is None:
            return False
        if call.op.name == "relax.take" and _is_index(call, fused.place):
            fused.selections[var] = _Selection(int(call.args[1].value.numpy()), keeps_axis=False)
        elif call.op.name == "relax.split" and len(reading) == 1 and _splits_all(call, fused):
            fused.inner.append(var)
            for item in graph.readers.get(var, []):
                field_of = graph.values.get(item)
                if not isinstance(field_of, relax.TupleGetItem):
                    return False
                fused.selections[item] = _Selection(int(field_of.index), keeps_axis=True)
        else:
            return False
    return bool(fused.selections)


def _is_index(call: relax.Call, axis: int) -> bool:
    """Whether a take selects one part by a constant."""
    index = call.args[1]
    if not isinstance(index, Constant) or index.value.numpy().ndim or call.attrs.axis is None:
        return False
    return int(call.attrs.axis) % len(static_shape(call.args[0])) == axis and int(index.value.numpy()) >= 0


def _splits_all(call: relax.Call, fused: _Fused) -> bool:
    """Whether a split separates all parts."""
    rank = len(static_shape(call.args[0]))
    return int(call.attrs.axis) % rank == fused.place and len(call.ty.fields) == fused.parts
