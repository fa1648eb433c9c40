"""Removing units from a module: parameters are cut, calls rebuilt by their operator's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.module_params import get_params, param_vars
from ..graph.rebuild import Rebuilder, rebuild
from .axes import Axes, Value
from .graph import ChannelGraph
from .registry import RULES, Site


def remove_units(mod: tvm.IRModule, graph: ChannelGraph, units: Mapping[str, Sequence[int] | np.ndarray]) -> tvm.IRModule:
    """Remove units of groups.

    Args:
        mod: The module that `graph` was made from, parameter values attached.
        graph: Its analysis.
        units: For each group's name the units to remove.

    Returns:
        The smaller module.

    Raises:
        ValueError: A group is unknown, a unit out of range, or a group would be emptied.
    """
    removal = _Removal(mod, graph, units)
    return rebuild(mod, removal.rewrite) if removal.any else mod


class _Removal:
    def __init__(self, mod: tvm.IRModule, graph: ChannelGraph, units: Mapping[str, Sequence[int] | np.ndarray]) -> None:
        self._graph = graph
        self._params: dict[str, np.ndarray] | None = None
        self._mod = mod
        self._gone = np.zeros(len(graph.components.frozen), bool)
        self._skipped: dict[relax.Var, relax.Var] = {}
        known = {group.name: group for group in graph.groups}
        by_name = {var.name: graph.values[var] for var in param_vars(mod["main"])}
        for name, indices in units.items():
            if name not in known:
                raise ValueError(f"there is no prunable group {name}")
            group, chosen = known[name], np.unique(np.asarray(indices, np.int64))
            if len(chosen) and (chosen[0] < 0 or chosen[-1] >= group.size):
                raise ValueError(f"group {name} has units 0 to {group.size - 1}")
            if len(chosen) == group.size:
                raise ValueError(f"removing all units of group {name} would leave nothing of it")
            (param, axis), positions = next(iter(group.members.items()))
            axes = by_name[param]
            assert isinstance(axes, Axes)
            self._gone[graph.components.labels[axes.ids[axis][positions[chosen, 0]]]] = True
        self.any = bool(self._gone.any())
        for shuffle in graph.shuffles.values():
            if self._is_cut(graph.values[shuffle.source]):
                self._skipped.update(dict.fromkeys(shuffle.inner, shuffle.source))

    def kept(self, ids: np.ndarray) -> np.ndarray:
        """The positions that stay."""
        return np.flatnonzero(~self._gone[self._graph.components.labels[ids]])

    def rewrite(self, rebuilder: Rebuilder, var: relax.Var, value: relax.Expr) -> relax.Expr | None:
        if self._params is None:
            # Whoever asks for a parameter from here on is given the cut one.
            self._params = self._cut_params(rebuilder)
            rebuilder.old_params.update(self._params)
        if var in self._skipped:
            # Nothing but a shuffle reads it, and the shuffle is rebuilt from its source.
            return rebuilder.get(self._skipped[var])
        if var in self._graph.shuffles:
            return self._shuffle(rebuilder, var)
        if not isinstance(value, relax.Call) or var not in self._graph.operands:
            return None
        operands = self._graph.operands[var]
        rule = RULES.get(getattr(value.op, "name", ""))
        args = [self._argument(rebuilder, arg, operand) for arg, operand in zip(value.args, operands)]
        site = Site(
            value,
            args,
            operands,
            self._graph.values[var],
            self.kept,
            lambda expr: rebuilder.emit(expr, f"{var.name}.part"),
        )
        return rule.rebuild(site) if rule is not None and rule.rebuild is not None else site.same()

    def _is_cut(self, value: Value) -> bool:
        return isinstance(value, Axes) and any(len(self.kept(ids)) != len(ids) for ids in value.ids)

    def _cut(self, array: np.ndarray, axes: Axes) -> np.ndarray:
        for axis, ids in enumerate(axes.ids):
            kept = self.kept(ids)
            if len(kept) != len(ids):
                array = np.take(array, kept, axis=axis)
        return array

    def _cut_params(self, rebuilder: Rebuilder) -> dict[str, np.ndarray]:
        values = get_params(self._mod)
        cut = {}
        for var in param_vars(rebuilder.source):
            axes = self._graph.values[var]
            if isinstance(axes, Axes) and self._is_cut(axes):
                cut[var.name] = self._cut(values[var.name], axes)
        return cut

    def _argument(self, rebuilder: Rebuilder, expr: relax.Expr, value: Value) -> relax.Expr:
        if isinstance(expr, Constant) and isinstance(value, Axes) and self._is_cut(value):
            return relax.const(self._cut(expr.value.numpy(), value))
        if isinstance(expr, relax.Tuple) and isinstance(value, list):
            return relax.Tuple([self._argument(rebuilder, item, axes) for item, axes in zip(expr.fields, value)])
        return rebuilder.get(expr)

    def _shuffle(self, rebuilder: Rebuilder, var: relax.Var) -> relax.Expr | None:
        shuffle = self._graph.shuffles[var]
        axes = self._graph.values[shuffle.source]
        if not isinstance(axes, Axes) or not self._is_cut(axes):
            return None
        kept = self.kept(axes.ids[shuffle.axis])
        rank = np.full(len(axes.ids[shuffle.axis]), -1)
        rank[kept] = np.arange(len(kept))
        order = rank[shuffle.order]
        index = relax.const(order[order >= 0].astype("int64"))
        return relax.op.take(rebuilder.get(shuffle.source), index, axis=shuffle.axis)
