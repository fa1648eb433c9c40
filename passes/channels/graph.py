"""From a module to its prunable groups: walk the bindings, let every operator's rule speak, solve, and sort."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_matrix

from .._tvm import Constant, relax, tvm
from ..errors import UserError
from ..graph.module_params import input_vars, param_vars
from ..graph.rebuild import bindings
from . import (  # noqa: F401  (the rules register themselves)
    rules_convolution,
    rules_elementwise,
    rules_linear,
    rules_normalization,
    rules_reduction,
    rules_reshape,
    rules_sampling,
    rules_shape,
)
from .atoms import Atoms, Components, Role
from .axes import Axes, Value, from_pairs, tensors
from .registry import RULES, Flow, NotCovered
from .shuffle import Shuffle, find_shuffles

_NUMBERED = re.compile(r"(lv|gv|value|output)(_?\d+)?")
_WEIGHT_SUFFIX = re.compile(r"[._/](weight|kernel|w|embedding|bias)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Group:
    """Interchangeable prunable units, for instance the output channels of one convolution.

    All units of a group occur in the same parameters and tensors, equally often; one unit always stays.

    Attributes:
        name: The layer that produces the units first; `#2`, `#3` behind it tell several groups of one layer apart.
        size: Number of units.
        members: For each (parameter, axis) the positions that a unit occupies there, int64 (units, positions a unit);
            in a frozen group all its positions, (1, positions).
        roles: What each (parameter, axis) is to the layer that reads it.
        tensors: The layers whose results the units run through, in order.
        places: For each (variable, axis) of an activation the positions that a unit occupies there, like `members`.
        frozen: Why no unit can be removed; None where units can be.
    """

    name: str
    size: int
    members: dict[tuple[str, int], np.ndarray]
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    places: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    frozen: str | None = None

    @property
    def width(self) -> int:
        """The most positions of one axis that go with a unit where it is produced; 1 for an ordinary convolution."""
        widths = [idx.shape[1] for key, idx in self.members.items() if self.roles.get(key) == Role.OUTPUT]
        return max(widths, default=1)


@dataclass(eq=False)
class ChannelGraph:
    """The solved atoms of a module.

    Attributes:
        values: What is known of every variable of `main`.
        operands: For each binding what is known of each argument of its call; those inside of shuffles are left out.
        shuffles: The channel shuffles by the variable of their result.
        components: The solved ties.
        groups: The groups that units can be removed from, in the order in which the network produces them.
        frozen: The groups that must stay, with reasons.
    """

    values: dict[relax.Var, Value]
    operands: dict[relax.Var, list[Value]]
    shuffles: dict[relax.Var, Shuffle]
    components: Components
    groups: list[Group]
    frozen: list[Group]


def groups(mod: tvm.IRModule) -> list[Group]:
    """The channel groups of a module: those that can be pruned, then those that cannot, with the reason.

    Args:
        mod: A module whose `main` is straight-line; values of parameters are not needed.

    Raises:
        UserError: `main` has control flow.
    """
    graph = analyze(mod)
    return [*graph.groups, *graph.frozen]


def analyze(mod: tvm.IRModule, preferred_splits: Collection[int] = ()) -> ChannelGraph:
    """Find all atoms of a module and what hangs together.

    Args:
        mod: A module whose `main` is straight-line.
        preferred_splits: Where a reshape splits an axis and several parts could be removed from, the sizes of parts
            that are taken first: the number of heads to remove whole heads, not positions inside every head.

    Raises:
        UserError: `main` has control flow.
    """
    walk = _Walk(mod["main"], preferred_splits)
    components = walk.atoms.solve()
    prunable, frozen = _Grouping(walk, components).run()
    return ChannelGraph(walk.values, walk.operands, walk.shuffles, components, prunable, frozen)


class _Walk:
    """Lets atoms flow through a function."""

    def __init__(self, func: relax.Function, preferred_splits: Collection[int]) -> None:
        self.atoms = Atoms()
        self.values: dict[relax.Var, Value] = {}
        self.operands: dict[relax.Var, list[Value]] = {}
        self.layer_names: dict[relax.Var, str] = {}
        self.params = param_vars(func)
        self._preferred_splits = frozenset(preferred_splits)
        for var in input_vars(func):
            self.layer_names[var] = var.name
            self.values[var] = self._fixed(var.ty, "an input of the model")
        for var in self.params:
            self.values[var] = self._fresh(var)
        try:
            program = list(bindings(func))
        except ValueError as error:
            raise UserError(f"channels cannot be followed: {error}") from None
        self.shuffles = find_shuffles(func)
        inside = {var for shuffle in self.shuffles.values() for var in shuffle.inner}
        for var, value in program:
            self.layer_names[var] = _layer_name(var, value)
            if var in inside:
                self.values[var] = None
            elif var in self.shuffles:
                self.values[var] = self._shuffle(self.shuffles[var])
            else:
                self.values[var] = self._visit(var, value)
        self._freeze(self.value(func.body.body), "the model returns it")

    def value(self, expr: relax.Expr) -> Value:
        """What is known of an argument."""
        if isinstance(expr, relax.Var):
            return self.values[expr]
        if isinstance(expr, relax.Tuple):
            return [self.value(item) for item in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            whole = self.value(expr.tuple_value)
            return whole[int(expr.index)] if isinstance(whole, list) else None
        if isinstance(expr, Constant):
            data = expr.value.numpy()
            others = [tuple(i for i in range(data.ndim) if i != axis) for axis in range(data.ndim)]
            return from_pairs([(self.atoms.new(dim), (data == 0).all(axis=o)) for dim, o in zip(data.shape, others)])
        return None

    def _visit(self, var: relax.Var, expr: relax.Expr) -> Value:
        if not isinstance(expr, relax.Call):
            return self.value(expr)
        operands = [self.value(arg) for arg in expr.args]
        self.operands[var] = operands
        # Printing an operator takes long; only what has no name is printed.
        name = str(expr.op.name if hasattr(expr.op, "name") else expr.op)
        rule = RULES.get(name)
        try:
            if rule is None:
                raise NotCovered(f"the operator {name} at {var.name} is not covered")
            flow = Flow(self.layer_names[var], expr, operands, self.atoms, self._preferred_splits)
            result = rule.propagate(flow)
        except NotCovered as reason:
            self._freeze(operands, str(reason))
            return self._fixed(var.ty, str(reason))
        return result

    def _shuffle(self, shuffle: Shuffle) -> Value:
        source = self.values[shuffle.source]
        if not isinstance(source, Axes):
            return None
        ids, zero = source.pairs()[shuffle.axis]
        return source.with_axis(shuffle.axis, ids[shuffle.order], zero[shuffle.order])

    def _fresh(self, var: relax.Var) -> Value:
        shape = _known_shape(var.ty)
        if shape is None:
            return None
        # A parameter is zero wherever it is zeroed.
        return from_pairs([(self.atoms.new(dim), np.ones(dim, bool)) for dim in shape])

    def _fixed(self, ty: object, reason: str) -> Value:
        if isinstance(ty, relax.TupleType):
            return [self._fixed(item, reason) for item in ty.fields]
        shape = _known_shape(ty)
        if shape is None:
            return None
        ids = [self.atoms.new(dim) for dim in shape]
        for axis in ids:
            self.atoms.freeze(axis, reason)
        return Axes(tuple(ids), tuple(np.zeros(dim, bool) for dim in shape))

    def _freeze(self, value: Value, reason: str) -> None:
        for axes in tensors(value):
            for ids in axes.ids:
                self.atoms.freeze(ids, reason)


def stem(name: str) -> str:
    """A parameter's name without what says that it is one: the name of its layer."""
    return _WEIGHT_SUFFIX.sub("", name)


def _known_shape(ty: object) -> tuple[int, ...] | None:
    if not isinstance(ty, relax.TensorType) or ty.shape is None:
        return None
    try:
        return tuple(int(dim) for dim in ty.shape)
    except TypeError:
        return None


def _layer_name(var: relax.Var, value: relax.Expr) -> str:
    """The binding's own name, or where that is only a number, its weight's without the suffix."""
    if not _NUMBERED.fullmatch(var.name) or not isinstance(value, relax.Call):
        return var.name
    names = [arg.name for arg in value.args if isinstance(arg, relax.Var) and not _NUMBERED.fullmatch(arg.name)]
    return stem(names[-1]) if names else var.name


class _Grouping:
    """Sorts components into groups whose units occur in the same places."""

    def __init__(self, walk: _Walk, components: Components) -> None:
        self._walk = walk
        self._components = components
        # A slot is one axis of one tensor: activations first, in order, then parameters.
        self._slot_names: list[tuple[str, int]] = []
        self._variables: list[str] = []
        slots: list[np.ndarray] = []
        for var, name in walk.layer_names.items():
            for axes in tensors(walk.values[var]):
                for axis, ids in enumerate(axes.ids):
                    self._variables.append(var.name)
                    self._slot_names.append((name, axis))
                    slots.append(ids)
        self._first_param = len(slots)
        for var in walk.params:
            for axes in tensors(walk.values[var]):
                for axis, ids in enumerate(axes.ids):
                    self._slot_names.append((var.name, axis))
                    slots.append(ids)
        sizes = [len(ids) for ids in slots]
        atoms = np.concatenate(slots) if slots else np.zeros(0, np.int64)
        self._slot = np.repeat(np.arange(len(slots)), sizes)
        self._position = np.concatenate([np.arange(size) for size in sizes]) if sizes else np.zeros(0, np.int64)
        self._component = components.labels[atoms]
        self._role = components.roles[atoms]

    def run(self) -> tuple[list[Group], list[Group]]:
        """The prunable groups and the frozen ones."""
        names: dict[str, int] = {}
        in_params = np.zeros(len(self._components.frozen), bool)
        in_params[self._component[self._slot >= self._first_param]] = True
        prunable = list(self._prunable(in_params & ~self._components.frozen, names))
        return prunable, list(self._frozen(names))

    def _prunable(self, wanted: np.ndarray, names: dict[str, int]) -> Iterator[Group]:
        mask = wanted[self._component]
        component, slot, position = self._component[mask], self._slot[mask], self._position[mask]
        units, first, unit = np.unique(component, return_index=True, return_inverse=True)
        if not len(units):
            return
        # Units in the order in which the network first produces them.
        order = np.argsort(np.argsort(first))
        unit = order[unit]
        key = _signatures(unit, slot, len(units), len(self._slot_names))
        _, first_unit, group_of_unit = np.unique(key, return_index=True, return_inverse=True)
        group_of_unit = np.argsort(np.argsort(first_unit))[group_of_unit.ravel()]
        first_unit_of_group = np.sort(first_unit)
        # Entries sorted by group, slot, unit and position can be cut into the members of each group.
        group = group_of_unit[unit]
        sorting = np.lexsort((position, unit, slot, group))
        group, slot, unit, position = (values[sorting] for values in (group, slot, unit, position))
        role = self._role[mask][sorting]
        sizes = np.bincount(group_of_unit)
        cuts = np.flatnonzero((np.diff(group) != 0) | (np.diff(slot) != 0)) + 1
        by_group: dict[int, list[tuple[int, np.ndarray, int]]] = {}
        for start, end in zip([0, *cuts], [*cuts, len(group)]):
            index = position[start:end].reshape(sizes[group[start]], -1)
            by_group.setdefault(int(group[start]), []).append((int(slot[start]), index, int(role[start])))
        producer = self._components.produced_by[units[np.argsort(order)[first_unit_of_group]]]
        for index, entries in by_group.items():
            if sizes[index] > 1:
                yield self._group(int(sizes[index]), entries, int(producer[index]), names)

    def _group(self, size: int, entries: list[tuple[int, np.ndarray, int]], producer: int, names: dict[str, int]) -> Group:
        in_params = [(slot, index, role) for slot, index, role in entries if slot >= self._first_param]
        members = {self._slot_names[slot]: index for slot, index, _ in in_params}
        roles = {self._slot_names[slot]: Role(role) for slot, _, role in in_params}
        outside = [(slot, index) for slot, index, _ in entries if slot < self._first_param]
        activations = [self._slot_names[slot][0] for slot, _ in outside]
        places = {(self._variables[slot], self._slot_names[slot][1]): index for slot, index in outside}
        if producer >= 0:
            base = self._components.producers[producer]
        else:
            base = activations[0] if activations else stem(self._slot_names[in_params[0][0]][0])
        return Group(_unique(base, names), size, members, roles, tuple(dict.fromkeys(activations)), places)

    def _frozen(self, names: dict[str, int]) -> Iterator[Group]:
        """Frozen components that reach a parameter and have a reason to tell, by reason and first place."""
        components = self._components
        mask = (components.why >= 0)[self._component]
        component, slot, position = self._component[mask], self._slot[mask], self._position[mask]
        in_params = slot >= self._first_param
        first_slot = np.full(len(components.why), len(self._slot_names))
        np.minimum.at(first_slot, component, slot)
        labels = np.unique(component[in_params])
        keys = np.stack([first_slot[labels], components.why[labels]], axis=1)
        places, place_of_label = np.unique(keys, axis=0, return_inverse=True)
        place_of_component = np.full(len(components.why), -1)
        place_of_component[labels] = place_of_label.ravel()
        place = place_of_component[component]
        for index, (start, why) in enumerate(places):
            inside = place == index
            members = {
                self._slot_names[entry]: position[inside & (slot == entry)].reshape(1, -1)
                for entry in np.unique(slot[inside & in_params])
            }
            if all(positions.size == 1 for positions in members.values()):
                continue
            name = stem(self._slot_names[start][0])
            activations = (self._slot_names[entry][0] for entry in np.unique(slot[inside & ~in_params]))
            size = int((place_of_label == index).sum())
            reason = components.reasons[why]
            yield Group(_unique(name, names), size, members, {}, tuple(dict.fromkeys(activations)), {}, reason)


def _signatures(unit: np.ndarray, slot: np.ndarray, units: int, slots: int) -> np.ndarray:
    """One number a unit, equal for units that occur in the same slots equally often (a 64-bit hash)."""
    matrix = csr_matrix((np.ones(len(unit), np.uint64), (unit, slot)), shape=(units, slots))
    matrix.sum_duplicates()
    weights = np.random.default_rng(0).integers(1, 2**63, slots, dtype=np.uint64)
    # A nonlinear mix of slot and count, so that sums of different slots do not meet.
    mixed = (weights[matrix.indices] ^ (matrix.data * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.add.reduceat(mixed, matrix.indptr[:-1])


def _unique(base: str, names: dict[str, int]) -> str:
    names[base] = names.get(base, 0) + 1
    return base if names[base] == 1 else f"{base}#{names[base]}"
