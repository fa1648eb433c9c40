"""Which tensors of a float model are quantized, so that integer operators can compute everything in between.

An operator, the bias addition behind it and the ReLU or clip behind that form a unit; only the unit's result is
quantized. A chain of operators that act on every element by itself becomes one table, so only its ends are. Operators
that move values keep the scale of what they move.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from .._tvm import Constant, relax, tvm
from ..graph.attention_mask import masked_scores
from ..graph.module_params import input_vars, static_shape
from ..graph.pointwise import pointwise_operands
from ..graph.view import GraphView
from ..numbers.affine import Affine
from .kinds import (
    CLIPS,
    FIXED,
    channel_axis,
    computes,
    constant_operand,
    is_float,
    is_layer,
    is_lookup,
    is_move,
    is_pool,
    is_product,
    joins,
    op_name,
    scaled_by,
)


@dataclass(frozen=True)
class Point:
    """How a tensor gets its scale: from its own range, from another tensor, or as a fixed one.

    Attributes:
        same_as: The tensor whose scale it shares, if any.
        fixed: Its scale, if it is known beforehand.
        of_constant: Whether it has the scale of the constant that it is taken from.
    """

    same_as: relax.Var | None = None
    fixed: Affine | None = None
    of_constant: bool = False

    @property
    def observed(self) -> bool:
        """Whether its scale follows from its range."""
        return self.same_as is None and self.fixed is None and not self.of_constant


@dataclass
class Plan:
    """The decision for a whole module.

    Attributes:
        points: The tensors that are quantized, in order of computation.
        layers: The convolutions and matrix products whose weights are quantized; the value is the bias addition behind
            it.
        constants: Constant tensors that are operands of quantized operators: (operator's variable, argument's
            position).
        heads: The operator that begins the unit whose result a quantized tensor is, where it is another one.
    """

    points: dict[relax.Var, Point] = field(default_factory=dict)
    layers: dict[relax.Var, relax.Var | None] = field(default_factory=dict)
    constants: list[tuple[relax.Var, int]] = field(default_factory=list)
    heads: dict[relax.Var, relax.Var] = field(default_factory=dict)

    @property
    def observed(self) -> set[str]:
        """Names of the tensors whose ranges calibration must find."""
        return {var.name for var, point in self.points.items() if point.observed}

    def root(self, var: relax.Var) -> relax.Var:
        """The tensor whose scale a quantized tensor has in the end: itself, or what it was moved from."""
        point = self.points[var]
        return var if point.same_as is None else self.root(point.same_as)


def plan_quantization(mod: tvm.IRModule, exclude: Collection[str] | Callable[[str], bool] = ()) -> Plan:
    """Decide on a module in canonical form.

    Args:
        mod: Float, parameters attached.
        exclude: Which layers stay in float: patterns (as of `fnmatch`) of their names, or a function of a name.
    """
    if callable(exclude):
        return _Planner(mod, exclude).run()
    patterns = tuple(exclude)
    return _Planner(mod, lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)).run()


class _Planner(GraphView):
    def __init__(self, mod: tvm.IRModule, exclude: Callable[[str], bool]) -> None:
        super().__init__(mod)
        self.exclude = exclude
        self.plan = Plan()
        # Members of units other than the last, which are not quantized.
        self.inside: set[relax.Var] = set()
        # What belongs to layers that stay in float.
        self.floating: set[relax.Var] = set()
        self.unit_of: dict[relax.Var, relax.Var] = {}
        self.roots: dict[relax.Var, relax.Var] = {}
        self.wanted: set[relax.Var] = set()
        # The scores of a softmax whose operand is a masking of them.
        self.masked: dict[relax.Var, relax.Var] = {}

    def run(self) -> Plan:
        self._find_masks()
        self._find_units()
        self._find_wanted()
        for var in input_vars(self.main):
            if var in self.wanted:
                self._add(var, Point())
        for var, value in self.values.items():
            if isinstance(value, relax.Call):
                self._visit(var, value)
            elif isinstance(value, relax.TupleGetItem):
                split = self.call(value.tuple_value)
                if split is not None and split.args[0] in self.plan.points and is_move(split, self.params):
                    self._add(var, Point(same_as=split.args[0]))
        return self.plan

    # What belongs together

    def _find_masks(self) -> None:
        """Masks of attention, which are part of the softmax behind them."""
        for var, value in self.values.items():
            if op_name(value) != "relax.nn.softmax" or not is_float(value) or self.exclude(var.name):
                continue
            operand = value.args[0]
            found = masked_scores(value, self.values.get, self._constant)
            if found is not None and self.is_alone(operand):
                self.masked[var] = found.scores
                self.inside.update((operand, *(part for part in found.made if isinstance(part, relax.Var))))

    def _constant(self, expr: relax.Expr) -> np.ndarray | None:
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return self.params.get(expr) if isinstance(expr, relax.Var) else None

    def _find_units(self) -> None:
        """Units, and chains of pointwise operators on one tensor: their roots, and which members are inside."""
        for var, value in self.values.items():
            if self._excluded(var):
                self._exclude_unit(var, value)
            if var in self.inside or var in self.unit_of or self._excluded(var):
                continue
            root = self._root(value)
            if root is not None:
                self.roots[var] = root
            elif isinstance(value, relax.Call) and computes(value, self.params):
                self._add_unit(var, value)
        for var, root in self.roots.items():
            readers = self.readers.get(var, [])
            if readers and all(not r.same_as(var) and self.roots.get(r) == root for r in readers):
                self.inside.add(var)

    def _exclude_unit(self, var: relax.Var, value: relax.Expr) -> None:
        """With a layer that stays in float, its bias and activation stay too."""
        if not isinstance(value, relax.Call) or not is_layer(value, self.params):
            return
        for belongs in (lambda call, end: self._is_bias(call, end), lambda call, end: call.op.name in CLIPS):
            follower = self.sole_reader(var)
            if follower is not None and belongs(follower[1], var):
                var = follower[0]
                self.floating.add(var)

    def _add_unit(self, var: relax.Var, value: relax.Call) -> None:
        end = var
        if is_layer(value, self.params):
            bias = None
            follower = self.sole_reader(end)
            if follower is not None and self._is_bias(follower[1], end):
                self.inside.add(end)
                bias = end = follower[0]
            self.plan.layers[var] = bias
        elif is_product(value, self.params):
            follower = self.sole_reader(end)
            if follower is not None and scaled_by(follower[1], self.params) and not self._excluded(follower[0]):
                self.inside.add(end)
                end = follower[0]
        follower = self.sole_reader(end)
        if follower is not None and follower[1].op.name in CLIPS and not self._excluded(follower[0]):
            self.inside.add(end)
            end = follower[0]
        self.unit_of[end] = var

    def _root(self, value: relax.Expr) -> relax.Var | None:
        """The one tensor that a pointwise operator, and those before it, are a function of."""
        operands = pointwise_operands(value, self.params)
        if operands is None:
            return None
        roots = {self.roots.get(operand, operand) for operand in operands}
        return roots.pop() if len(roots) == 1 and all(is_float(root) for root in roots) else None

    def _is_bias(self, call: relax.Call, layer: relax.Var) -> bool:
        if call.op.name != "relax.add":
            return False
        first, second = call.args
        value = self.params.get(second) if isinstance(second, relax.Var) else None
        if not first.same_as(layer) or value is None:
            return False
        axis = channel_axis(self.values[layer])
        channels = static_shape(layer)[axis]
        rank = len(static_shape(layer))
        wide = (1,) * (rank - value.ndim) + value.shape
        return value.size == channels and len(wide) == rank and wide[axis] == channels

    def _excluded(self, var: relax.Var) -> bool:
        return var in self.floating or self.exclude(var.name)

    # What is wanted as an integer by some reader

    def _find_wanted(self) -> None:
        for var, value in reversed(self.values.items()):
            if not isinstance(value, relax.Call):
                if isinstance(value, relax.TupleGetItem) and var in self.wanted:
                    self.wanted.add(value.tuple_value)
                continue
            if var in self.masked:
                self.wanted.add(self.masked[var])
                continue
            reads = var in self.plan.layers or var in self.unit_of.values() or var in self.roots
            own = joins(value) and not self._excluded(var)
            if reads or own or (var in self.wanted and is_move(value, self.params)):
                self.wanted.update(operand for operand in _operands(value) if operand not in self.params)

    # The decision

    def _add(self, var: relax.Var, point: Point) -> None:
        ty = var.ty
        if isinstance(ty, relax.TensorType) and str(ty.dtype) == "float32" and var not in self.params:
            self.plan.points.setdefault(var, point)

    def _visit(self, var: relax.Var, value: relax.Call) -> None:
        if var in self.inside or not isinstance(var.ty, relax.TensorType):
            return
        if self._excluded(var) and var not in self.unit_of:
            # Readers may still want it as an integer.
            if var in self.wanted:
                self._add(var, Point())
            return
        if var in self.unit_of:
            head = self.plan.heads[var] = self.unit_of[var]
            self._add_constant(head)
            self._add(var, Point())
        elif var in self.roots or joins(value):
            self._add(var, self._same_scale(value) if is_pool(value) else Point(fixed=FIXED.get(op_name(value))))
        elif is_lookup(value, self.params) and var in self.wanted:
            self._add_constant(var)
            self._add(var, Point(of_constant=True))
        elif is_move(value, self.params) and (value.args[0] in self.plan.points or var in self.wanted):
            self._add(var, self._same_scale(value))
        elif var in self.wanted:
            self._add(var, Point())

    def _same_scale(self, value: relax.Call) -> Point:
        """The scale of the operand, where it has one."""
        return Point(same_as=value.args[0]) if value.args[0] in self.plan.points else Point()

    def _add_constant(self, var: relax.Var) -> None:
        value = self.values[var]
        position = constant_operand(value, self.params) if var not in self.plan.layers else None
        if position is not None:
            self.plan.constants.append((var, position))


def _operands(call: relax.Call) -> list[relax.Var]:
    found: list[relax.Var] = []
    for arg in call.args:
        found.extend(arg.fields if isinstance(arg, relax.Tuple) else [arg])
    return [arg for arg in found if isinstance(arg, relax.Var)]
