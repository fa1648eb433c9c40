"""A fused projection is split where it is made, not where it is used.

Transformers compute queries, keys and values by one matrix product and take them apart after a reshape to
(..., 3, heads, width) and a transposition. Read literally, position k of every query, key and value is one slice of one
tensor and can only be removed together. Split at once,

    q, k, v = split(x @ w, 3);  q = permute(reshape(q, (..., heads, width)))

values, and queries with keys, have widths of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ._tvm import Constant, relax, tvm
from .module_params import static_shape
from .rebuild import DROP, Drop, Rebuilder, bindings, rebuild, users


@tvm.transform.module_pass(opt_level=0, name="SplitProjections")
class SplitProjections:
    """Move splits in front of the reshape and transposition before them, where they cut the outermost part of one axis."""

    def transform_module(self, mod: tvm.IRModule, ctx: tvm.transform.PassContext) -> tvm.IRModule:
        """Rewrite `main`."""
        main = mod["main"]
        found = _find(main)
        heads = {fused.reshape: fused for fused in found}
        inner = {var for fused in found for var in (fused.permute, fused.split) if var is not None}
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
    """A reshape that splits `axis` of `source` into `parts` and more, a transposition, and what selects parts."""

    reshape: relax.Var
    source: relax.Var
    axis: int
    parts: int
    shape: tuple[int, ...]
    permute: relax.Var | None = None
    order: list[int] | None = None
    split: relax.Var | None = None
    selections: dict[relax.Var, _Selection] = field(default_factory=dict)

    @property
    def place(self) -> int:
        """Where the axis of parts is behind the transposition."""
        return self.axis if self.order is None else self.order.index(self.axis)

    def piece(self, build: Rebuilder, split: relax.Var, selection: _Selection) -> relax.Expr:
        """One part, as its reader wants it."""
        part = build.emit(relax.TupleGetItem(split, selection.index), f"{split.name}.part{selection.index}")
        shape, order = list(self.shape), self.order
        if selection.keeps_axis:
            shape[self.axis] = 1
        else:
            del shape[self.axis]
            if order is not None:
                order = [axis - (axis > self.axis) for axis in order if axis != self.axis]
        result = relax.op.reshape(part, shape)
        return result if order is None else relax.op.permute_dims(build.emit(result, f"{part.name}.reshape"), order)


def _find(main: relax.Function) -> list[_Fused]:
    values = dict(bindings(main))
    readers = users(main)
    found = []
    for var, value in values.items():
        fused = _splitting_reshape(var, value)
        if fused is None:
            continue
        last = var
        follower = readers[var][0] if len(readers.get(var, [])) == 1 else None
        call = values.get(follower) if follower is not None else None
        if isinstance(call, relax.Call) and call.op.name == "relax.permute_dims" and call.attrs.axes is not None:
            fused.permute = last = follower
            fused.order = [int(axis) % len(fused.shape) for axis in call.attrs.axes]
        if _select(fused, last, values, readers):
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


def _select(
    fused: _Fused,
    last: relax.Var,
    values: Mapping[relax.Var, relax.Expr],
    readers: Mapping[relax.Var, list[relax.Var]],
) -> bool:
    """Whether everything that reads the tensor selects parts; records what does."""
    reading = readers.get(last, [])
    for var in reading:
        call = values.get(var)
        if not isinstance(call, relax.Call):
            return False
        if call.op.name == "relax.take" and _is_index(call, fused.place):
            fused.selections[var] = _Selection(int(call.args[1].value.numpy()), keeps_axis=False)
        elif call.op.name == "relax.split" and len(reading) == 1 and _splits_all(call, fused):
            fused.split = var
            for item in readers.get(var, []):
                field_of = values.get(item)
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
    fields = call.ty.fields
    return int(call.attrs.axis) % len(fused.shape) == fused.place and len(fields) == fused.parts
